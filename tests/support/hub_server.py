"""A server that takes an upload as the Hugging Face Hub does: small files in the commit, large ones over Git LFS."""

from __future__ import annotations

import base64
import hashlib
import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any


class StandIn:
    """repositories: id -> {file: content}. tokens: what came as Authorization where a repository is made or written."""

    def __init__(self) -> None:
        self.repositories: dict[str, dict[str, bytes]] = {}
        self.private: dict[str, bool] = {}
        self.objects: dict[str, bytes] = {}
        self.tokens: set[str | None] = set()
        self.asked: list[str] = []
        self.cards: list[str] = []
        self.url = ""

    def answer(self, method: str, path: str, body: bytes) -> tuple[int, Any]:
        parts = path.split("?")[0].strip("/").split("/")
        if parts[:3] == ["api", "repos", "create"]:
            asked = json.loads(body)
            name = f"{asked.get('organization') or 'me'}/{asked['name']}"
            if "refused" in name:
                return 403, {"error": "You do not have the rights to create a model under this namespace"}
            status = 409 if name in self.repositories else 200
            self.repositories.setdefault(name, {})
            self.private.setdefault(name, asked.get("visibility") == "private")
            return status, {"url": f"{self.url}/{name}", "name": name, "id": name}
        if parts[:2] == ["api", "validate-yaml"]:
            self.cards.append(json.loads(body)["content"])
            return 200, {"errors": [], "warnings": []}
        if parts[:2] == ["api", "models"] and "preupload" in parts:
            files = json.loads(body)["files"]
            mode = {True: "lfs", False: "regular"}
            return 200, {
                "files": [
                    {"path": f["path"], "uploadMode": mode[f["path"].endswith(".safetensors")], "shouldIgnore": False}
                    for f in files
                ]
            }
        if path.endswith("/info/lfs/objects/batch"):
            objects = json.loads(body)["objects"]
            return 200, {
                "transfer": "basic",
                "objects": [{**o, "actions": {"upload": {"href": f"{self.url}/lfs/{o['oid']}"}}} for o in objects],
            }
        if method == "PUT" and parts[0] == "lfs":
            assert hashlib.sha256(body).hexdigest() == parts[1]
            self.objects[parts[1]] = body
            return 200, {}
        if method == "GET" and parts[:2] == ["api", "models"] and "/".join(parts[2:]) in self.repositories:
            name = "/".join(parts[2:])
            return 200, {"id": name, "private": self.private[name], "siblings": [], "tags": []}
        if parts[:2] == ["api", "models"] and "commit" in parts:
            name = "/".join(parts[2:4])
            for line in map(json.loads, body.decode().splitlines()):
                if line["key"] == "file":
                    self.repositories[name][line["value"]["path"]] = base64.b64decode(line["value"]["content"])
                elif line["key"] == "lfsFile":
                    self.repositories[name][line["value"]["path"]] = self.objects[line["value"]["oid"]]
            return 200, {"commitUrl": f"{self.url}/{name}/commit/abc", "commitOid": "abc", "success": True}
        return 404, {"error": f"{method} {path} is not known here"}


@contextmanager
def hub() -> Iterator[StandIn]:
    stand_in = StandIn()

    class Handler(BaseHTTPRequestHandler):
        def _answer(self) -> None:
            stand_in.asked.append(f"{self.command} {self.path}")
            if self.path.startswith(("/api/repos", "/api/models")):
                stand_in.tokens.add(self.headers.get("Authorization"))
            body = (
                self.rfile.read(int(self.headers.get("Content-Length") or 0))
                if "chunked" not in str(self.headers)
                else self._chunks()
            )
            status, found = stand_in.answer(self.command, self.path, body)
            raw = json.dumps(found).encode()
            self.send_response(status)
            self.send_header("Content-Type", "application/json")
            self.send_header("Content-Length", str(len(raw)))
            self.end_headers()
            self.wfile.write(raw)

        def _chunks(self) -> bytes:
            body = b""
            while size := int(self.rfile.readline(), 16):
                body += self.rfile.read(size)
                self.rfile.readline()
            self.rfile.readline()
            return body

        do_POST = do_PUT = do_GET = do_HEAD = _answer

        def log_message(self, *_: Any) -> None:
            """Quiet."""

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    stand_in.url = f"http://127.0.0.1:{server.server_port}"
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    try:
        yield stand_in
    finally:
        server.shutdown()
        server.server_close()

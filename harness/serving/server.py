"""vLLM's OpenAI-compatible server on a checkpoint: the command it is, its environment, its life, what it says about
itself.
"""

from __future__ import annotations

import contextlib
import json
import os
import re
import shlex
import signal
import socket
import subprocess
import sys
import threading
import time
import urllib.error
import urllib.request
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO

from harness.core.errors import MeasurementError, UsageError
from harness.core.processes import end_with_parent
from harness.core.secrets import HIDDEN, SERVER_KEY, secret_pattern
from harness.engine.memory_budget import EngineSettings, engine_arguments
from harness.engine.vllm_engine import check_libraries
from harness.serving.api_key_middleware import NEEDS_KEY
from harness.serving.vllm_options import allowed_options
from pruning.checkpoint import ModelFolder

LOOPBACK = ("127.0.0.1", "localhost", "::1")
_WELL, _DEAD = 200, 503
_STOPPING = 30.0  # seconds that a server has to end by itself
_LAST_WORDS = 5.0  # seconds until what a server that has ended said is in its log
_LONGEST_LINE = 1 << 20  # bytes
_ENVIRONMENT = {
    "VLLM_ENABLE_V1_MULTIPROCESSING": "1",
    "VLLM_NO_USAGE_STATS": "1",
    "DO_NOT_TRACK": "1",
    "VLLM_CONFIGURE_LOGGING": "1",
    "VLLM_LOGGING_LEVEL": "INFO",
    "VLLM_DEBUG_LOG_API_SERVER_RESPONSE": "False",  # would log every answer
    "VLLM_ALLOW_RUNTIME_LORA_UPDATING": "False",  # a request could name any folder
    "VLLM_USE_RUST_FRONTEND": "0",  # knows no --middleware, so it would answer below /invocations without the key
}
_DIRECT = urllib.request.build_opener(
    urllib.request.ProxyHandler({})
)  # a proxy knows nothing of this machine's own addresses


@dataclass(frozen=True)
class Address:
    """Where the server listens. `api_key`: asked of every request but the health check
    (harness/serving/api_key_middleware.py).
    """

    host: str = "127.0.0.1"
    port: int = 8000
    api_key: str | None = None

    @property
    def url(self) -> str:
        return f"http://{'[' + self.host + ']' if ':' in self.host else self.host}:{self.port}"


@dataclass(frozen=True)
class ServerOptions:
    """How a checkpoint is served. max_model_len: tokens of a prompt and its answer, None for what the model can take.

    extra: vLLM's own options, of those that harness/serving/vllm_options.py lists.
    """

    address: Address
    max_model_len: int | None = None
    extra: Sequence[str] = ()


@dataclass(frozen=True)
class Server:
    """One that runs. `log`: the file with everything that it and its engine print, keys and tokens hidden; `logging`:
    the thread that writes it.
    """

    process: subprocess.Popen[bytes]
    address: Address
    log: Path
    logging: threading.Thread


def command(
    model: ModelFolder, name: str, config: EngineSettings, address: Address, extra: Sequence[str] = ()
) -> list[str]:
    """The plain `vllm serve` line; the key is left to the environment, where other users of the machine do not see
    it. Requests are not logged: their addresses can hold a key. Raises UsageError for an option that is not allowed.
    """
    flags: list[str] = []
    for key, value in engine_arguments(model, config).items():
        flag = f"--{key.replace('_', '-')}"
        flags += [flag] if value is True else [f"--no-{flag[2:]}"] if value is False else [flag, str(value)]
    guard = ["--middleware", NEEDS_KEY] if address.api_key else []
    folder = str(model.path)
    return [
        "vllm",
        "serve",
        f"./{folder}" if folder.startswith("-") else folder,  # the name of a folder must not be read as an option
        f"--served-model-name={name}",
        "--host",
        address.host,
        "--port",
        str(address.port),
        *flags,
        "--disable-uvicorn-access-log",
        *guard,
        *allowed_options(extra),
    ]


def check_address(address: Address) -> None:
    """Raises UsageError for a port in use, a key that no header can carry, and a server that others can reach and use
    without a key.
    """
    if address.api_key and not re.fullmatch(r"[!-~]+", address.api_key):
        raise UsageError(
            "the key of the server must be of visible ASCII characters without blanks; give another in VLLM_API_KEY"
        )
    if address.host not in LOOPBACK and not address.api_key:
        raise UsageError(
            f"--host {address.host} can be reached from other machines; add --api-key, or leave --host out"
        )
    with socket.socket(socket.AF_INET6 if ":" in address.host else socket.AF_INET) as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((address.host, address.port))
        except OSError as error:
            raise UsageError(
                f"{address.host}:{address.port} cannot be used ({error.strerror}); give another --port"
            ) from error


def curl_line(address: Address, name: str, chat: bool) -> str:
    """A line for a shell that asks the server something. chat: whether the model has a chat template. The key is taken
    from the variable VLLM_API_KEY.
    """
    question = "What is 3 + 4?"
    asked = {"messages": [{"role": "user", "content": question}]} if chat else {"prompt": question}
    body = json.dumps({"model": name, **asked, "max_tokens": 64})
    key = f' -H "Authorization: Bearer ${SERVER_KEY}"' if address.api_key else ""
    url = shlex.quote(f"{address.url}/v1/{'chat/completions' if chat else 'completions'}")
    return f"curl {url}{key} -H 'Content-Type: application/json' -d {shlex.quote(body)}"


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


@contextlib.contextmanager
def running(
    model: ModelFolder, name: str, config: EngineSettings, address: Address, log: Path, extra: Sequence[str] = ()
) -> Iterator[Server]:
    """Starts a server and waits until it answers; all its processes end on leaving. Raises MeasurementError where it
    does not start.

    Within, SIGTERM raises KeyboardInterrupt as Ctrl-C does.
    """
    check_address(address)
    check_libraries(model)
    line = [sys.executable, "-m", "vllm.entrypoints.cli.main", *command(model, name, config, address, extra)[1:]]
    with _terminated_like_interrupted(), _private(log) as output:
        process = subprocess.Popen(
            line,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            stdin=subprocess.DEVNULL,
            env=_environment(config, address),
            start_new_session=True,
            preexec_fn=end_with_parent,
        )
        logging = threading.Thread(target=_copy, args=(process.stdout, output, address.api_key), daemon=True)
        logging.start()
        server = Server(process, address, log, logging)
        try:
            _wait_until_ready(server)
            yield server
        finally:
            stop(server)


def _private(log: Path) -> BinaryIO:
    """A new log that only this user can read; the one before is kept as .log.1."""
    log.parent.mkdir(parents=True, exist_ok=True)
    if log.exists():
        log.chmod(0o600)
        log.replace(log.with_suffix(".log.1"))
    log.touch(0o600, exist_ok=False)
    return log.open("wb", buffering=0)


def _copy(said: BinaryIO, log: BinaryIO, key: str | None) -> None:
    """Line by line until the last process of the server has ended, without keys and tokens."""
    pattern = secret_pattern(key)
    with said:
        for line in iter(lambda: said.readline(_LONGEST_LINE), b""):
            text = line.decode("utf-8", "surrogateescape")
            shown = pattern.sub(HIDDEN, text) if pattern else text
            with contextlib.suppress(OSError, ValueError):  # a full disk; the server must not wait for somebody to read
                log.write(shown.encode("utf-8", "surrogateescape"))


@contextlib.contextmanager
def _terminated_like_interrupted() -> Iterator[None]:
    before = signal.signal(signal.SIGTERM, signal.default_int_handler)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)


def stop(server: Server) -> None:
    """SIGTERM, time to finish, then SIGKILL for whatever of it is left: a dead engine leaves workers behind."""
    try:
        server.process.terminate()
        with contextlib.suppress(subprocess.TimeoutExpired):
            server.process.wait(_STOPPING)
    finally:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(server.process.pid, signal.SIGKILL)
        server.process.wait()
        server.logging.join(_STOPPING)


def wait(server: Server) -> None:
    """Until KeyboardInterrupt; raises MeasurementError where the server ends by itself or says that its engine is
    dead.
    """
    while server.process.poll() is None and health(server) != _DEAD:
        time.sleep(1)
    raise MeasurementError(f"vLLM's server died: {reason(server)}; all it said is in {server.log}")


def health(server: Server) -> int | None:
    """HTTP status of /health; None without an answer."""
    try:
        with _DIRECT.open(f"{server.address.url}/health", timeout=5) as answer:
            return int(answer.status)
    except urllib.error.HTTPError as error:
        return error.code
    except (urllib.error.URLError, OSError):
        return None


def _wait_until_ready(server: Server) -> None:
    """Ours is ready only while it lives: another that took the port in between would answer as well."""
    while health(server) != _WELL or server.process.poll() is not None:
        if server.process.poll() is not None:
            raise MeasurementError(f"vLLM's server did not start: {reason(server)}; all it said is in {server.log}")
        time.sleep(0.2)


def reason(server: Server) -> str:
    """The last error in the log, in a line."""
    server.logging.join(_LAST_WORDS)
    lines = server.log.read_text(encoding="utf-8", errors="replace").splitlines()
    errors = [found[1] for line in lines if (found := re.search(r"((?:[\w.]*(?:Error|Exception)|error): .+)", line))]
    return errors[-1][:300] if errors else f"exit code {server.process.poll()}"


def _environment(config: EngineSettings, address: Address) -> dict[str, str]:
    """The engine runs in its own process there."""
    found = {**os.environ, **_ENVIRONMENT}
    for name in (SERVER_KEY, "VLLM_LOGGING_CONFIG_PATH"):  # a logging config can write elsewhere
        found.pop(name, None)
    if address.api_key:
        found[SERVER_KEY] = address.api_key
    if config.threads:
        found |= {"OMP_NUM_THREADS": str(config.threads), "VLLM_CPU_OMP_THREADS_BIND": "nobind"}
    return found


def published_cache(server: Server) -> dict[str, str]:
    """What the running engine publishes of its KV cache, by vLLM's names."""
    text = _get(server, "/metrics")
    labels = re.search(r"^vllm:cache_config_info\{(.*)\}", text, re.MULTILINE)
    if labels is None:
        raise MeasurementError(f"the server at {server.address.url} says nothing of its cache; see {server.log}")
    return dict(re.findall(r'(\w+)="([^"]*)"', labels[1]))


def _get(server: Server, path: str) -> str:
    headers = {"Authorization": f"Bearer {server.address.api_key}"} if server.address.api_key else {}
    request = urllib.request.Request(f"{server.address.url}{path}", headers=headers)
    with _DIRECT.open(request, timeout=30) as answer:
        return str(answer.read().decode())


def cpu_seconds(server: Server) -> float:
    """Of the server and its engine since they started."""
    return float(sum(t.user + t.system for t in (process.cpu_times() for process in _family(server))))


def _family(server: Server) -> list[Any]:
    import psutil

    first = psutil.Process(server.process.pid)
    return [first, *first.children(recursive=True)]

"""For `vllm serve --middleware`: vLLM itself asks for the key only below /v1 and leaves other ways to generate open."""

from __future__ import annotations

import hmac
import os
from collections.abc import Awaitable, Callable
from typing import Any

NEEDS_KEY = f"{__name__}.NeedsKey"
_OPEN = ("/health", "/ping")


class NeedsKey:
    """An ASGI application in front of another one: 401 for every request but health checks that lacks the key in
    VLLM_API_KEY.
    """

    def __init__(self, app: Callable[..., Awaitable[None]]) -> None:
        self.app, self.expected = app, f"Bearer {os.environ['VLLM_API_KEY']}".encode()

    async def __call__(self, scope: dict[str, Any], receive: Any, send: Any) -> None:
        given = dict(scope.get("headers", ())).get(b"authorization", b"")
        if (
            scope["type"] not in ("http", "websocket")
            or scope["path"] in _OPEN
            or hmac.compare_digest(given, self.expected)
        ):
            await self.app(scope, receive, send)
        elif scope["type"] == "websocket":
            await send({"type": "websocket.close", "code": 1008})
        else:
            await send(
                {"type": "http.response.start", "status": 401, "headers": [(b"content-type", b"application/json")]}
            )
            await send({"type": "http.response.body", "body": b'{"error": "Unauthorized"}'})

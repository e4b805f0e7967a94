"""For `vllm serve --middleware`: vLLM itself asks for the key only below /v1 and leaves other ways to generate open."""

from __future__ import annotations

import hmac
import os
from collections.abc import Awaitable, Callable
from typing import Any

NEEDS_KEY = f"{__name__}.NeedsKey"
_OPEN = ("/health", "/ping")
_HEADER = b"authorization"


class NeedsKey:
    """An ASGI application in front of another one: 401 for every request but health checks that lacks the key in
    VLLM_API_KEY.

    A request has one Authorization header, `Bearer KEY`: the scheme in any case, then blanks (RFC 9110, 11.4). It is
    passed on in one spelling, so that the application behind reads it the same way.
    """

    def __init__(self, app: Callable[..., Awaitable[None]]) -> None:
        self.app, self.expected = app, os.environ["VLLM_API_KEY"].encode()

    async def __call__(self, scope: dict[str, Any], receive: Any, send: Any) -> None:
        if scope["type"] not in ("http", "websocket") or scope["path"] in _OPEN:
            await self.app(scope, receive, send)
        elif self._has_key(scope):
            others = [(name, value) for name, value in scope["headers"] if name.lower() != _HEADER]
            await self.app({**scope, "headers": [*others, (_HEADER, b"Bearer " + self.expected)]}, receive, send)
        elif scope["type"] == "websocket":
            await send({"type": "websocket.close", "code": 1008})
        else:
            await send(
                {"type": "http.response.start", "status": 401, "headers": [(b"content-type", b"application/json")]}
            )
            await send({"type": "http.response.body", "body": b'{"error": "Unauthorized"}'})

    def _has_key(self, scope: dict[str, Any]) -> bool:
        given = [value for name, value in scope.get("headers", ()) if name.lower() == _HEADER]
        scheme, _, key = (given[0] if len(given) == 1 else b"").strip(b" \t").partition(b" ")
        return scheme.lower() == b"bearer" and hmac.compare_digest(key.lstrip(b" "), self.expected)

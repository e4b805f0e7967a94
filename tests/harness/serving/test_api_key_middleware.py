"""Who gets past the key: the scheme in any case, blanks as RFC 9110 has them, one header, nothing else."""

from __future__ import annotations

import asyncio
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest

from harness.serving.api_key_middleware import NeedsKey

KEY = "hk-LEAK-9922"
Headers = list[tuple[bytes, bytes]]


@pytest.fixture
def guarded(monkeypatch: pytest.MonkeyPatch) -> NeedsKey:
    monkeypatch.setenv("VLLM_API_KEY", KEY)

    async def inner(scope: dict[str, Any], _receive: Any, send: Any) -> None:
        await send({"type": "http.response.start", "status": 200, "headers": scope["headers"]})

    return NeedsKey(inner)


def ask(guarded: NeedsKey, headers: Headers, path: str = "/metrics", kind: str = "http") -> list[dict[str, Any]]:
    sent: list[dict[str, Any]] = []

    async def send(message: dict[str, Any]) -> None:
        sent.append(message)

    request = guarded({"type": kind, "path": path, "method": "OPTIONS", "headers": headers}, None, send)
    with ThreadPoolExecutor(1) as thread:  # a browser test may have left a loop in this one
        thread.submit(asyncio.run, request).result()
    return sent


@pytest.mark.parametrize(
    "value",
    [f"Bearer {KEY}", f"bearer {KEY}", f"BEARER {KEY}", f"bEaReR   {KEY}", f"Bearer {KEY}  ", f" \tBearer {KEY}\t "],
)
def test_every_spelling_of_the_scheme_gets_in_and_arrives_behind_it_as_one(guarded: NeedsKey, value: str) -> None:
    (start,) = ask(guarded, [(b"accept", b"*/*"), (b"authorization", value.encode())])
    assert start["status"] == 200
    assert start["headers"] == [(b"accept", b"*/*"), (b"authorization", f"Bearer {KEY}".encode())]


@pytest.mark.parametrize(
    "headers",
    [
        [],
        [(b"authorization", b"")],
        [(b"authorization", b"Bearer")],
        [(b"authorization", b"Bearer ")],
        [(b"authorization", KEY.encode())],
        [(b"authorization", f"Basic {KEY}".encode())],
        [(b"authorization", f"Bearer{KEY}".encode())],
        [(b"authorization", f"Bearer\t{KEY}".encode())],
        [(b"authorization", f"Bearer {KEY.lower()}".encode())],
        [(b"authorization", f"Bearer {KEY} x".encode())],
        [(b"authorization", f"Bearer {KEY},".encode())],
        [(b"authorization", f"Bearer {KEY[:-1]}".encode())],
        [(b"authorization", b"Bearer \xff\xfe")],
        [(b"authorization", f"Bearer {KEY}".encode()), (b"authorization", b"Bearer x")],
        [(b"authorization", b"Bearer x"), (b"Authorization", f"Bearer {KEY}".encode())],
        [(b"x-api-key", KEY.encode())],
        [(b"cookie", f"authorization=Bearer {KEY}".encode())],
    ],
)
def test_everything_else_does_not(guarded: NeedsKey, headers: Headers) -> None:
    assert ask(guarded, headers)[0]["status"] == 401
    assert ask(guarded, headers, kind="websocket") == [{"type": "websocket.close", "code": 1008}]
    assert ask(guarded, headers, "/health")[0]["status"] == 200

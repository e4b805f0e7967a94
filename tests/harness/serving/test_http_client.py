"""What vLLM's own client is told, and its report as a pass; the client itself runs in test_bench.py."""

from __future__ import annotations

import itertools
import json
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from harness.core.errors import MeasurementError
from harness.serving import http_client, server
from harness.serving.http_client import arguments, online_round, write_requests
from harness.serving.server import Address
from harness.serving.workload import Workload

WORKLOAD = Workload("task", ((1, 2), (3,)), output_tokens=16)
RUNNING: Any = SimpleNamespace(address=Address(port=8123), log=Path("server.log"))


def test_the_client_asks_what_an_offline_round_asks() -> None:
    line = arguments(RUNNING, "tiny", Path("m"), Path("r.jsonl"), WORKLOAD, 8)
    given = dict(itertools.pairwise(line))
    assert (given["--num-prompts"], given["--max-concurrency"]) == (str(len(WORKLOAD.requests_for(8))), "8")
    assert (given["--custom-output-len"], given["--temperature"], given["--model"]) == ("16", "0", "tiny")
    assert given["--base-url"] == RUNNING.address.url and {"--disable-shuffle", "--skip-chat-template"} <= set(line)
    assert "--ignore-eos" in line
    ending = Workload("task", ((1, 2),), 16, stop_at_eos=True)
    assert "--ignore-eos" not in arguments(RUNNING, "tiny", Path("m"), Path("r.jsonl"), ending, 8)


def test_prompts_are_written_as_text_one_a_line(tmp_path: Path) -> None:
    tokenizer = SimpleNamespace(decode=lambda ids: f"text\n{ids}\u2028é")
    write_requests(WORKLOAD, tokenizer, tmp_path / "r.jsonl")
    lines = (tmp_path / "r.jsonl").read_text(encoding="utf-8").rstrip("\n").split("\n")
    assert [json.loads(line) for line in lines] == [
        {"prompt": "text\n[1, 2]\u2028é"},
        {"prompt": "text\n[3]\u2028é"},
    ]


def reported(monkeypatch: pytest.MonkeyPatch, **report: Any) -> None:
    """A report as the client gives it, and a server that worked for two seconds meanwhile."""
    clock = iter((10.0, 12.0))
    monkeypatch.setattr(server, "cpu_seconds", lambda _: next(clock))
    monkeypatch.setattr(http_client, "_client", lambda _: report)


def test_a_report_becomes_a_pass(monkeypatch: pytest.MonkeyPatch) -> None:
    """Two answers: 3 tokens at 0.5, 0.7 and 1.0 s; one token at 0.25 s."""
    reported(
        monkeypatch,
        duration=4.0,
        failed=0,
        errors=["", ""],
        input_lens=[10, 20],
        ttfts=[0.5, 0.25],
        itls=[[0.2, 0.3], []],
        output_lens=[3, 1],
    )
    found = online_round(RUNNING, [])
    assert (found.seconds, found.cpu_seconds) == (4.0, 2.0)
    assert found.ttft_ms == pytest.approx([500, 250]) and found.itl_ms == pytest.approx([200, 300])
    assert found.tpot_ms == pytest.approx([250])  # (1.0 - 0.5) / 2
    assert found.answers == [3, 1] and found.input_tokens == 30


def test_failed_requests_are_no_measurement(monkeypatch: pytest.MonkeyPatch) -> None:
    reported(monkeypatch, duration=4.0, failed=2, errors=["", "Traceback\nConnectionResetError: gone\n"])
    with pytest.raises(MeasurementError, match=r"2 requests failed \(ConnectionResetError: gone\); see server.log"):
        online_round(RUNNING, [])

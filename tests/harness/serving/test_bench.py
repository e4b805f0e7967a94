"""`harness bench` on real engines and real servers: the embedded model beside a narrower one and beside itself."""

from __future__ import annotations

import json
import os
import re
from pathlib import Path
from typing import Any

import jsonschema
import numpy as np
import psutil
import pytest
from click.testing import CliRunner

from harness.cli.main import cli
from harness.core.errors import MeasurementError
from harness.core.types.pruning import PruningPlan
from harness.pipeline.run_json import run_schema
from harness.pipeline.single_stage import apart
from pruning.checkpoint import open_model
from pruning.export import export
from tests.support.models import TINY_MATH

pytestmark = [pytest.mark.slow]
OPTIONS = ["--concurrency", "2", "--repeats", "2", "--output-tokens", "8", "--threads", "1", "--json"]


@pytest.fixture(scope="module")
def narrow(tmp_path_factory: pytest.TempPathFactory) -> Path:
    keep = tuple(np.arange(320, dtype=np.int32) for _ in range(4))
    plan = PruningPlan(
        keep=keep,
        intermediate_size=640,
        method="random",
        metric=None,
        ratio=0.5,
        seed=0,
        alignment=1,
        model="tiny-math",
        model_hash=open_model(TINY_MATH).fingerprint,
        scores_hash="",
        tokens="all",
    )
    return export(open_model(TINY_MATH), plan, tmp_path_factory.mktemp("narrow") / "narrow").path


def bench(out: Path, *arguments: str) -> dict[str, Any]:
    made = CliRunner().invoke(cli, ["bench", *arguments, *OPTIONS, "--out", str(out)])
    assert made.exit_code == 0, made.output
    run: dict[str, Any] = json.loads((out / "run.json").read_text())
    jsonschema.validate(run, run_schema())
    return run


@pytest.mark.thorough
def test_offline_figures_are_of_the_requests_that_were_asked_for(narrow: Path, tmp_path: Path) -> None:
    run = bench(tmp_path / "run", "tiny-math", str(narrow), "--input-tokens", "20")
    assert [v["name"] for v in run["variants"]] == ["tiny-math", "narrow"]
    for v in run["variants"]:
        s = v["serving"]
        (row,) = s["concurrency"]
        assert (row["concurrency"], row["repeats"], row["tokens_per_answer"], s["mode"]) == (2, 2, 8.0, "offline")
        assert row["requests"] % 4 == 0  # rounds of four
        assert row["output_tok_s"] < row["total_tok_s"] < 1.5 * row["output_tok_s"] * (30 + 8) / 8
        assert row["output_tok_s"] < 1.1 * os.cpu_count() * row["output_tok_cpu_s"]  # no more CPU than the machine has
        assert 0 < row["itl_ms"]["p50"] <= row["itl_ms"]["p90"] <= row["itl_ms"]["p99"]
        assert 0 < row["tpot_ms"]["p50"] <= row["tpot_ms"]["p90"] <= row["tpot_ms"]["p99"] and row["ttft_ms"]["p50"] > 0
        assert s["weight_bytes"] == v["weight_bytes"] and s["prompts"].startswith("random, ")
        assert s["kv_bytes_per_token"] == s["forecast"]["kv_bytes_per_token"] == 2048
        assert s["kv_capacity_tokens"] == s["forecast"]["kv_capacity_tokens"]
        assert (
            s["forecast"]["weight_bytes"] == open_model(narrow if v["name"] == "narrow" else TINY_MATH).parameters * 2
        )
        assert 200 << 20 < s["resident_bytes"] <= s["peak_bytes"] < 4 << 30
        assert s["engine_weight_bytes"] is None
    ratios = [(r["variant"], r["quantity"], r["pairs"]) for r in run["speed_ratios"]]
    assert ratios == [("narrow", quantity, 2) for quantity in ("output_tok_s", "output_tok_cpu_s")]
    assert all(1.2 < r["ideal_bytes"] < r["ideal_flops"] < 2 for r in run["speed_ratios"])


def test_models_of_the_same_name_are_toldapart() -> None:
    named = [("a", Path("x")), ("a", Path("y")), ("b", Path("z")), ("a", Path("x"))]
    assert apart(named) == {"a": Path("x"), "a-2": Path("y"), "b": Path("z"), "a-3": Path("x")}
    assert list(apart([("a", Path("x")), ("a-2", Path("y")), ("a", Path("z"))])) == ["a", "a-2", "a-3"]


@pytest.mark.thorough
def test_online_figures_come_from_vllms_own_client_on_a_real_server(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """And a memory that cannot be measured does not cost what was measured before it."""
    monkeypatch.setattr("harness.serving.bench.footprint", no_footprint)
    run = bench(tmp_path / "run", "tiny-math", "--online", "--stop-at-eos", "--input-tokens", "100")
    s = run["variants"][0]["serving"]
    (row,) = s["concurrency"]
    assert (s["mode"], s["stop_at_eos"], s["prompts"][:8]) == ("online", True, "random, ")
    least, most = (int(number) for number in re.findall(r"\d+", s["prompts"]))
    prompts = row["total_tok_s"] / row["output_tok_s"] * row["tokens_per_answer"] - row["tokens_per_answer"]
    assert least <= prompts <= most + 2  # the server saw the tokens that are named, and what it puts before them
    assert 1 <= row["tokens_per_answer"] <= 8
    assert row["requests"] % 4 == 0 and row["output_tok_s"] > 0 and row["output_tok_cpu_s"] > 0
    assert s["kv_capacity_tokens"] == s["forecast"]["kv_capacity_tokens"] == s["kv_blocks"] * 128
    facts = {
        key: s["engine"][key] for key in ("dtype", "kv_cache_dtype", "enforce_eager", "max_num_seqs", "block_size")
    }
    assert facts == {
        "dtype": "float32",
        "kv_cache_dtype": "auto",
        "enforce_eager": True,
        "max_num_seqs": 2,
        "block_size": 128,
    }
    assert len((tmp_path / "run" / "requests.jsonl").read_text().splitlines()) == 4
    assert (
        "Uvicorn" in (log := (tmp_path / "run" / "server-tiny-math.log").read_text())
        or "Application startup complete" in log
    )
    assert not [p for p in psutil.Process().children(recursive=True) if "vllm.entrypoints.cli.main" in p.cmdline()]
    assert s["resident_bytes"] is None


def no_footprint(*_: Any) -> None:
    raise MeasurementError("no room for another engine")


def test_prompts_that_do_not_fit_the_context_are_refused_before_any_engine_starts(tmp_path: Path) -> None:
    made = CliRunner().invoke(cli, ["bench", "tiny-math", "--input-tokens", "600", "--out", str(tmp_path / "run")])
    assert "give a smaller --output-tokens or --input-tokens" in str(made.exception)

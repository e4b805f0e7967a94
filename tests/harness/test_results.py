from __future__ import annotations

import json
from pathlib import Path

import harness
from harness.evaluate import summarise
from harness.results import run_schema
from harness.types import SampleRecord
from tasks.failures import FailureKind


def record(i: int, correct: bool, *failures: str, finish: str | None = "stop", n: int | None = 10) -> SampleRecord:
    return SampleRecord(i, "p", "t", correct, "1", failures[0] if failures else None, failures, finish, n)


def test_the_published_schema_is_the_one_of_the_types() -> None:
    """After a change of types.py: python -c "import json; from harness.results import run_schema; ..." as CONTRIBUTING says."""
    assert json.loads((Path(harness.__path__[0]) / "run.schema.json").read_text()) == json.loads(json.dumps(run_schema()))


def test_a_summary_counts_every_kind_and_leaves_wrong_answers_out_of_the_failure_rate() -> None:
    rows = [
        record(0, True),
        record(1, False, "wrong"),
        record(2, False, "truncated", "no_answer"),
        record(3, True, "truncated", finish="length"),
    ]
    found = summarise("exact_match", rows, 1.0, "s")
    assert (found.n, found.value, found.failure_rate, found.tokens_per_answer) == (4, 0.5, 0.5, 10.0)
    assert (found.failures["truncated"], found.failures["no_answer"], found.failures["wrong"]) == (0.5, 0.25, 0.25)
    assert set(found.failures) == {str(kind) for kind in FailureKind}


def test_what_the_engine_did_not_say_is_none() -> None:
    found = summarise("exact_match", [record(0, True, finish=None, n=None)], 1.0, "s")
    assert (found.failure_rate, found.tokens_per_answer, found.failures["truncated"], found.failures["empty"]) == (None, None, None, 0.0)

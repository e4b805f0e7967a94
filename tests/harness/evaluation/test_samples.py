"""A row says which module the sandbox does not have, graded with lm-eval or without."""

from __future__ import annotations

from concurrent.futures import Future

import pytest

from harness.evaluation.samples import builtin_record, graded_record, sample_records
from tasks.failures import FailureKind, GradedAnswer
from tasks.generation import Generation
from tasks.registry import find_task

TEXT = "import numpy\ndef f(): return 1\n"


@pytest.mark.parametrize("module", ["numpy", None])
def test_a_row_names_the_missing_module(module: str | None) -> None:
    graded = GradedAnswer(TEXT, TEXT, False, is_code=True, outcome="runtime_error", missing_module=module)
    assert graded_record(0, "", graded).missing_module == module

    text = Generation(TEXT)
    text.verdict = Future()
    text.verdict.set_result(graded)
    flags = {f"fail_{kind}": float(kind == FailureKind.RUNTIME_ERROR) for kind in FailureKind}
    sample = {"doc_id": 0, "doc": {"entry_point": "f"}, "arguments": [("", {})], "resps": [[text]], "pass@1": 0.0}
    (row,) = sample_records(find_task("mbpp"), [{**sample, **flags}])
    assert (row.missing_module, row.failures) == (module, ("runtime_error",))

    sample["resps"] = [[Generation(TEXT)]]  # graded in another process
    (row,) = sample_records(find_task("mbpp"), [{**sample, **flags}])
    assert row.missing_module is None


@pytest.mark.parametrize(("target", "gold"), [("#### 8", "#### 8"), ("", None), (2, None)])
def test_a_row_has_the_right_answer_where_it_is_a_text(target: object, gold: str | None) -> None:
    flags = {f"fail_{kind}": 0.0 for kind in FailureKind}
    sample = {"doc_id": 0, "doc": {"entry_point": "f"}, "arguments": [("", {})], "pass@1": 0.0, "target": target}
    (row,) = sample_records(find_task("mbpp"), [{**sample, **flags, "resps": [[Generation(TEXT)]]}])
    assert row.gold == gold
    assert builtin_record({**sample, "resps": [[Generation(TEXT)]]}, 0.0).gold == gold

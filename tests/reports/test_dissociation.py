"""The section of `harness dissociate`, from the committed example."""

from __future__ import annotations

import copy
import json
from pathlib import Path
from typing import Any

import pytest

from harness.core import run_rows
from reports.build import write_reports
from reports.sections.dissociation import dissociation_sentences, matrix_chart, matrix_table, section
from reports.verdict import commands, verdict
from tests.support.runs import EXAMPLES

RUN: dict[str, Any] = json.loads((EXAMPLES / "dissociate-tiny-math" / "run.json").read_text(encoding="utf-8"))


def test_the_matrix_holds_the_shares_of_right_answers() -> None:
    found = RUN["dissociation"]
    rows = {row[0]: row[1:] for row in matrix_table(found).rows}
    asked = [one for one in found["interventions"] if one["kind"] == "reverse" and one["target"] == "mini_math"]
    right = [one["outcomes"]["mini_code"].count("1") / len(one["outcomes"]["mini_code"]) for one in asked]
    shown = rows["mini_math"][found["tasks"].index("mini_code")]
    assert shown == f"{100 * sum(right) / 3:.1f} % ({100 * min(right):.1f} to {100 * max(right):.1f})"
    assert {"none (dense)", "mini_math, mini_code held out", "19 random sets"} <= rows.keys()
    (drawn,) = matrix_chart(found).spec.to_dict()["datasets"].values()
    cell = next(row for row in drawn if (row["neurons"], row["task"]) == ("mini_math", "mini_code"))
    assert cell["accuracy"] == pytest.approx(100 * sum(right) / 3)


def test_the_verdict_is_a_line_for_each_task_and_recommends_nothing() -> None:
    assert verdict(RUN) == dissociation_sentences(RUN)
    assert [line.split(",")[0] for line in verdict(RUN)] == RUN["dissociation"]["tasks"]
    assert commands(RUN, Path()) == []


def test_the_page_shows_verdicts_with_their_rules_and_failures(tmp_path: Path) -> None:
    run = copy.deepcopy(RUN)
    run["dissociation"]["failed"] = {"mini_math-mean": "<b>out of memory</b>"}
    run["dissociation"]["explanations"][0]["details"] = ["<script>alert(1)</script>"]
    (tmp_path / "run.json").write_text(json.dumps(run), encoding="utf-8")
    written, rules = write_reports(tmp_path), f"rule, version {run['dissociation']['rules']}"
    for text in (written["html"].read_text(), written["md"].read_text()):
        assert "task-specific set" in text and "Failed interventions" in text and rules in text
        assert "<b>out of memory" not in text and "<script>alert(1)" not in text


def test_other_runs_have_no_such_section() -> None:
    assert section({**RUN, "dissociation": None}).empty
    assert section({key: value for key, value in RUN.items() if key != "dissociation"}).empty


def test_every_figure_is_a_row() -> None:
    rows = {(row[0], row[4], row[5]): row for row in run_rows.rows(RUN)}
    found = RUN["dissociation"]
    assert len({row[0] for row in rows.values() if row[5] == "accuracy"}) == len(found["interventions"])
    one = rows["mini_math-reverse-0", "mini_code", "accuracy"]
    assert one[6] == found["interventions"][0]["outcomes"]["mini_code"].count("1") / 150 and one[9] == 150
    explained = next(e for e in found["explanations"] if e["explanation"] == "a few super neurons")
    shown = rows["a few super neurons", explained["target"], f"{explained['figure']}: {explained['verdict']}"]
    assert shown[6:9] == (explained["value"], explained["ci_low"], explained["ci_high"])

"""A small dissociation of the embedded model on real engines: whole, again, and refused."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import jsonschema
import numpy as np
import pytest

import harness as package
from harness.evaluation.paired import read_samples
from pruning.plan_file import load_plan
from tests.support.cli import harness, invoke

SMALL = [
    *("dissociate", "tiny-math", "--task", "mini_math,mini_facts", "--limit", "6", "--calibration-samples", "16"),
    *("--matched-sets", "2", "--random-sets", "2", "--calibration-seeds", "1", "--threads", "1", "--json"),
]


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, dict[str, Any]]:
    folder = tmp_path_factory.mktemp("dissociate") / "run"
    return folder, invoke(*SMALL, "--out", str(folder))[0]


@pytest.mark.slow
@pytest.mark.long
def test_run_json_holds_every_intervention_and_its_answers(whole: tuple[Path, dict[str, Any]]) -> None:
    folder, run = whole
    jsonschema.validate(run, json.loads((Path(package.__path__[0]) / "run.schema.json").read_text()))
    found = run["dissociation"]
    assert found["failed"] == {} and found["tasks"] == ["mini_math", "mini_facts"]
    asked = invoke(*SMALL, "--dry-run")[0]
    assert len(found["interventions"]) == asked["interventions"]
    assert (
        sum(len(one["outcomes"]) for one in [*found["interventions"], {"outcomes": found["dense"]}])
        == (asked["evaluations"])
    )
    for one in found["interventions"]:
        for task, outcomes in one["outcomes"].items():
            rows = read_samples(folder / "samples" / one["name"] / f"{task}.jsonl")
            assert outcomes == "".join("01"[bool(rows[i]["correct"])] for i in found["items"][task])
    assert {(e["target"], e["explanation"]) for e in found["explanations"]} == {
        (task, name)
        for task in found["tasks"]
        for name in (
            *("general importance", "a few super neurons", "surface form"),
            *("zeroing artefact", "distractor choice", "task-specific set"),
        )
    }


@pytest.mark.slow
@pytest.mark.long
def test_sets_are_what_their_names_say(whole: tuple[Path, dict[str, Any]]) -> None:
    folder, run = whole
    names = [one["name"] for one in run["dissociation"]["interventions"]]
    keep = {name: load_plan(folder / "sets" / f"{name}.safetensors").keep for name in names}
    removed = {name: [set(range(640)) - set(map(int, row)) for row in rows] for name, rows in keep.items()}
    reverse, few = removed["mini_math-reverse-0"], removed["mini_math-super"]
    assert [len(row) for row in reverse] == [64] * 4
    assert [a - b for a, b in zip(reverse, few, strict=True)] == removed["mini_math-without-super"]
    assert sum(map(len, few)) == 10
    assert not any(a & b for a, b in zip(reverse, removed["mini_math-contribution-by-layer-0"], strict=True))
    assert all(a < b for a, b in zip(removed["mini_math-dose-0.05"], reverse, strict=True))
    assert not any(removed["mini_math-times-0.5"]), "scaled, not removed"
    shares = {one["name"]: one for one in run["dissociation"]["interventions"]}
    assert shares["mini_math-super"]["overlap"] == 1.0
    assert shares["mini_math-without-super"]["contribution"] + shares["mini_math-super"]["contribution"] == (
        pytest.approx(shares["mini_math-reverse-0"]["contribution"])
    )


@pytest.mark.slow
@pytest.mark.long
def test_the_whole_set_is_that_of_harness_score_and_plan(whole: tuple[Path, dict[str, Any]], tmp_path: Path) -> None:
    """Without mini_facts among the distractors, against general text alone; by hand from the scores' own moments."""
    from harness.core.types.calibration import CalibrationSet
    from harness.models.tokenizer import load_chat
    from harness.pipeline import scoring
    from harness.sweeps.dissociation.sources import GENERAL, examples, tokenised
    from pruning.calibration import calibration_items
    from pruning.checkpoint import open_model
    from pruning.score_file import load
    from tasks.registry import find_task
    from tests.support.models import TINY_MATH

    model, tasks = open_model(TINY_MATH), [find_task(name) for name in ("mini_math", "mini_facts")]
    tokenizer, chat = load_chat(model, {})
    texts = examples(tasks, 16, 0)
    own = tokenised(model, "tiny-math", texts, scoring.CalibrationRequest(), chat)["mini_math"]
    others = calibration_items(tokenizer, texts[GENERAL], False, "all", chat, 512)
    both = CalibrationSet("tiny-math", model.fingerprint, "a", ("b",), "all", (*own.items, *others))
    scoring.score_model(model, both, scoring.ScoreRequest(threads=1), tmp_path / "s.safetensors")
    scores = load(tmp_path / "s.safetensors").scores["smd"]
    found = load_plan(whole[0] / "sets" / "mini_math-without-mini_facts-0.safetensors").keep
    for row, keep in zip(scores, found, strict=True):
        expected = np.sort(np.argsort(row, kind="stable")[:576])
        assert len(np.setdiff1d(expected, keep)) <= 1, "but for near-ties"


@pytest.mark.slow
@pytest.mark.long
def test_what_is_done_is_not_done_again(whole: tuple[Path, dict[str, Any]]) -> None:
    folder, run = whole
    (folder / "eval" / "mini_math-mean.json").unlink()
    again, said = invoke(*SMALL, "--out", str(folder))
    assert "Evaluating 1 variant" in said
    assert again["dissociation"]["interventions"] == run["dissociation"]["interventions"]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--task", "mini_math"], None),
        (["--task", "mini_math,wikitext"], "wikitext is measured as bits_per_byte"),
        (["--ratio", "0.6"], "at most 0.5"),
        (["--ratio", "0.0001"], "at least one neuron"),
        (["--matched-sets", "1"], "matched-sets"),
    ],
)
def test_a_dry_run_refuses_what_the_run_would(options: list[str], message: str | None) -> None:
    done = harness("dissociate", "tiny-math", *options, "--dry-run")
    assert done.returncode == (2 if message else 0)
    assert message is None or message in done.stderr

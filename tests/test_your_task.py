"""docs/your-task.md does what it says: tasks that no code of ours names, in every command."""

from __future__ import annotations

import json
import re
import shlex
from pathlib import Path
from typing import Any

import pytest

from tasks.mini_distractors import fact_examples
from tasks.mini_math.task import items
from tasks.splits import Split
from tests.support.cli import harness

PAGE = Path(__file__).resolve().parent.parent / "docs" / "your-task.md"
SMALL = {  # the same commands, on less
    "HARNESS_LIMIT": "12",
    "HARNESS_CALIBRATION_SAMPLES": "8",
    "HARNESS_REPEATS": "1",
    "HARNESS_OUTPUT_TOKENS": "2",
    "HARNESS_CONCURRENCY": "1",
    "HARNESS_REQUESTS": "1",
    "HARNESS_WORKERS": "1",
    "HARNESS_SEEDS": "33",
}
SHORT = {"HARNESS_STEPS": "2", "HARNESS_BATCH": "2", "HARNESS_CURVE": "0"}
LEAKED = 3


def text_of_the_page() -> str:
    return PAGE.read_text(encoding="utf-8")


def commands() -> list[list[str]]:
    return [shlex.split(line) for line in re.findall(r"^    harness (.*)$", text_of_the_page(), re.MULTILINE)]


def write_tasks(place: Path) -> None:
    """The page's YAML files, and rows of the form that it shows."""
    folder = place / "my_tasks"
    folder.mkdir()
    for content in re.findall(r"^```yaml\n(.*?)^```", text_of_the_page(), re.MULTILINE | re.DOTALL):
        (folder / f"{content.split()[1]}.yaml").write_text(content)
    problems = {split: [{"problem": p.question, "working": p.solution} for p in items(split, 40)] for split in SPLITS}
    write(folder / "train.jsonl", problems["train"] + problems["test"][:LEAKED])
    write(folder / "test.jsonl", problems["test"])
    facts = fact_examples(60, seed=1)
    others = sorted({fact.answer for fact in facts})
    asked = [
        {"question": fact.prompt, "choices": [others[i % 9], fact.answer], "right": 1} for i, fact in enumerate(facts)
    ]
    write(folder / "examples.jsonl", asked[:30])
    write(folder / "questions.jsonl", asked[30:])


SPLITS: tuple[Split, ...] = ("train", "test")


def write(file: Path, rows: list[dict[str, Any]]) -> None:
    file.write_text("".join(json.dumps(row) + "\n" for row in rows))


@pytest.mark.slow
@pytest.mark.long
def test_every_command_of_the_page(tmp_path: Path) -> None:
    write_tasks(tmp_path)
    for words in commands():
        done = harness(*words, cwd=tmp_path, **SMALL, **(SHORT if words[0] == "recover" else {}))
        assert done.returncode == 0, f"{words}: {done.stderr}"
    run, recovered, curve = (
        json.loads((tmp_path / "runs" / name / "run.json").read_text()) for name in ("mine", "recovered", "curve")
    )
    assert run["task"] == "word_problems" and run["calibration"]["n_target"] == 8
    assert run["calibration"]["target"] == f"word_problems (train, {LEAKED} test items left out)"
    metrics = {"word_problems": "exact_match", "which_fact": "acc", "fact_text": "byte_perplexity"}
    dense, pruned = (variant["eval"] for variant in run["variants"])
    assert {name: found["metric"] for name, found in dense.items()} == metrics
    assert dense["word_problems"]["value"] > 0.9 and dense["word_problems"]["failure_rate"] == 0.0
    assert dense["fact_text"]["value"] < pruned["fact_text"]["value"]
    compared = {c["task"]: c for c in run["comparisons"]}
    assert compared["which_fact"]["mcnemar_p"] is not None and compared["fact_text"]["mcnemar_p"] is None
    assert {v["name"] for v in recovered["variants"]} == {"pruned", "pruned-recovered"}
    points = {(p["task"], round(p["ratio_requested"], 1)): p for p in curve["sweep"]["points"]}
    assert {task for task, _ in points} == set(metrics)
    last = points["word_problems", 0.8]
    assert last["value"] < 0.5 and last["failure_rate"] is not None and (tmp_path / "runs/curve/report.html").exists()

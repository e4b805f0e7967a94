"""What lies in the page is what lies in the samples folder: whole where it fits, flips and failures first where it does
not.
"""

from __future__ import annotations

import base64
import json
import zlib
from pathlib import Path
from typing import Any

from reports.samples import embedded
from tests.support.runs import EVAL, RUN, VARIANT, answer


def run_with(folder: Path, **rows: list[dict[str, Any]]) -> dict[str, Any]:
    """A run of one variant for each name, with these answers on mini_math."""
    variants = []
    for name, answers in rows.items():
        where = f"samples/{name}/mini_math.jsonl"
        (folder / where).parent.mkdir(parents=True)
        (folder / where).write_text("".join(json.dumps(row) + "\n" for row in answers), encoding="utf-8")
        failures = {"loop": 0.0, "truncated": 0.0, "wrong": 0.0}
        variants.append(
            {**VARIANT, "name": name, "eval": {"mini_math": {**EVAL, "samples": where, "failures": failures}}}
        )
    return {**RUN, "variants": variants}


def unpacked(packed: str | None) -> dict[str, Any]:
    assert packed is not None
    found: dict[str, Any] = json.loads(zlib.decompress(base64.b64decode(packed)))
    return found


def test_every_answer_comes_back_as_it_was_written(tmp_path: Path) -> None:
    text = "ünï </script> \u202e \x00 'quoted' \"twice\"\n"
    run = run_with(tmp_path, dense=[answer(3, text, True, [])], pruned=[answer(3, "no", False, ["truncated", "wrong"])])
    found = unpacked(embedded(run, tmp_path))
    assert found["kinds"] == ["loop", "truncated", "wrong"] and found["base"] == "dense"
    task = found["tasks"]["mini_math"]
    assert task["prompts"] == {"3": "question 3"} and task["total"] == 2
    assert task["variants"] == {"dense": [[3, text, 1, [], 9, -1]], "pruned": [[3, "no", 0, [1, 2], 9, -1]]}


def test_a_loop_starts_where_its_repetition_does(tmp_path: Path) -> None:
    text = "Let me think. " + "and so on " * 12
    run = run_with(tmp_path, dense=[answer(0, text, False, ["loop"])])
    start = unpacked(embedded(run, tmp_path))["tasks"]["mini_math"]["variants"]["dense"][0][5]
    assert text[start:].strip() == ("and so on " * 12).strip()


def test_an_answer_names_the_module_that_the_sandbox_does_not_have(tmp_path: Path) -> None:
    run = run_with(tmp_path, dense=[{**answer(0, "x", False, ["wrong"]), "missing_module": "numpy"}])
    assert unpacked(embedded(run, tmp_path))["tasks"]["mini_math"]["variants"]["dense"][0][6:] == ["numpy"]


def test_the_loops_place_is_counted_as_javascript_counts(tmp_path: Path) -> None:
    """In UTF-16 units: characters beyond the first plane are two."""
    text = "\U0001f600" * 20 + " START " + "and so on " * 12
    run = run_with(tmp_path, dense=[answer(0, text, False, ["loop"])])
    start = unpacked(embedded(run, tmp_path))["tasks"]["mini_math"]["variants"]["dense"][0][5]
    units = text.encode("utf-16-le")
    assert units[2 * start :].decode("utf-16-le").strip() == ("and so on " * 12).strip()


def test_an_answer_that_nothing_explains_has_a_kind_to_be_found_by(tmp_path: Path) -> None:
    run = run_with(tmp_path, dense=[answer(0, "x", False, []), answer(1, "y", True, [])])
    run["variants"][0]["eval"]["mini_math"]["wrong_by_kind"] = {"unexplained": 0.5}
    found = unpacked(embedded(run, tmp_path))
    rows = found["tasks"]["mini_math"]["variants"]["dense"]
    assert [[found["kinds"][i] for i in row[3]] for row in rows] == [["unexplained"], []]


def test_under_a_small_budget_flips_and_failures_stay_with_the_dense_answers_to_them(tmp_path: Path) -> None:
    noise = {i: base64.b85encode(zlib.compress(str(i).encode()) * 30).decode() for i in range(60)}
    dense = [answer(i, noise[i], True, []) for i in range(60)]
    pruned = [answer(i, noise[i][::-1], i not in (17, 41), ["wrong"] if i in (17, 41) else []) for i in range(60)]
    run = run_with(tmp_path, dense=dense, pruned=pruned)
    whole = embedded(run, tmp_path)
    packed = embedded(run, tmp_path, budget_bytes=len(whole or "") // 2)
    assert packed is not None and len(packed) <= len(whole or "") // 2
    task = unpacked(packed)["tasks"]["mini_math"]
    items = [row[0] for row in task["variants"]["pruned"]]
    assert {17, 41} <= set(items) and len(items) < 60 and items == sorted(items)
    assert {row[0] for row in task["variants"]["dense"]} >= set(items) and task["total"] == 120
    assert set(task["prompts"]) >= set(map(str, items))


def test_no_samples_no_browser(tmp_path: Path) -> None:
    assert embedded(RUN, tmp_path) is None

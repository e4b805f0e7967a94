"""A card on its way: from the original through pruning and recovery to the Hub, with one front matter and one voice."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import yaml
from huggingface_hub import ModelCard as HubCard
from hypothesis import given
from hypothesis import strategies as st

from harness.core.model_card import MADE, NO_CLAIM, ORIGINAL, QUALITY, TUNED, ModelCard, inherited, read, render, split
from pruning.model_card import model_card
from recovery.card import recovered_card
from reports.model_card import render as hub_card
from tests.support.runs import EXAMPLE

FRONT = """---
license: mit
language: [en, nb]
tags: [maths]
base_model: org/older
model-index: [{name: x}]
---
"""
BODY = "# The original\n\nIt is good.\n\n---\n\n## Quality\n\nThe best.\n\n```sh\n## no heading\n```"
STEP: dict[str, Any] = {
    "method": "selective",
    "metric": "smd",
    "tokens": "all",
    "allocation": "uniform",
    "compensated": True,
    "sequential": True,
    "general_weight": 0.2,
    "intermediate_size": 100,
    "widths": [80, 80],
}
PRUNED: dict[str, Any] = {
    "model": "org/dense",
    "model_kind": "hub",
    "dense_intermediate_size": 100,
    "steps": [STEP],
}
RECOVERED: dict[str, Any] = {
    "source": "mini_math (train)",
    "tuning": "lora",
    "steps": 60,
    "batch": 16,
    "learning_rate": 2e-4,
    "distill": 0.5,
}


def pruned_card(folder: Path, readme: str | None) -> str:
    if readme is not None:
        (folder / "README.md").write_bytes(readme.encode())
    return model_card(PRUNED, [80, 80], folder)


def test_from_the_original_to_the_hub(tmp_path: Path) -> None:
    pruned = pruned_card(tmp_path, FRONT + BODY)
    recovered = recovered_card(pruned, RECOVERED)
    run = json.loads(EXAMPLE.read_text(encoding="utf-8"))
    final = hub_card(run, "selective-S-0.2", read(recovered))

    for text, claims in ((pruned, 1), (recovered, 1), (final, 0)):
        card = HubCard(text)
        assert (card.data.license, card.data.language, card.data.tags) == ("mit", ["en", "nb"], ["maths", "pruned"])
        assert card.data.base_model == "org/dense"
        assert text.count(NO_CLAIM) == claims and text.count("Made from `org/dense`") == 1
        assert BODY in text and "license:" not in card.text, "the front matter is not repeated in the text"
        assert text.count(f"## {ORIGINAL}\n") == 1 and text.count("org/older") == 0
    assert "LoRA on mini_math (train): 60 steps of 16 examples" in recovered and f"## {TUNED}\n" in final
    assert HubCard(pruned).data.eval_results is None and len(HubCard(final).data.eval_results or ()) == 3
    assert list(read(recovered).sections) == [MADE, TUNED, QUALITY, ORIGINAL]


@pytest.mark.parametrize(
    ("kind", "name", "shown"),
    [
        ("hub", "org/dense", "org/dense"),
        ("folder", "/home/me/org/dense", "dense"),
        ("file", "/home/me/model.gguf", "model.gguf"),
        ("alias", "tiny-math", "tiny-math"),
        ("unknown", "org/dense", "dense"),
    ],
)
def test_only_a_model_of_the_hub_is_a_base_model(kind: str, name: str, shown: str, tmp_path: Path) -> None:
    text = model_card({**PRUNED, "model": name, "model_kind": kind}, [80, 80], tmp_path)
    assert HubCard(text).data.base_model == ("org/dense" if kind == "hub" else None)
    assert f"Made from `{shown}` by" in text and "/home" not in text


def test_a_model_pruned_twice_tells_both_steps(tmp_path: Path) -> None:
    once = recovered_card(pruned_card(tmp_path, FRONT + BODY), RECOVERED)
    (tmp_path / "README.md").write_text(once)
    second = {**STEP, "method": "random", "metric": None, "intermediate_size": 80, "widths": [55, 55]}
    steps = [STEP, {**second, "recovery": RECOVERED}]
    twice = model_card({**PRUNED, "steps": steps}, [55, 55], tmp_path)
    assert "45.0% of the FFN neurons removed" in twice and "in 2 steps, FFN width 100 -> 55 in all" in twice
    assert "1. Method `selective`" in twice and "2. After fine-tuning on mini_math (train). Method `random`" in twice
    assert twice.count(BODY) == 1 and twice.count(f"## {ORIGINAL}\n") == 1 and "LoRA on mini_math" in twice
    assert HubCard(twice).data.base_model == "org/dense"


def test_the_card_says_what_an_adapter_of_the_dense_model_does(tmp_path: Path) -> None:
    assert "A LoRA adapter of the dense model does not fit" in pruned_card(tmp_path, None)


def test_a_second_training_is_told_after_the_first(tmp_path: Path) -> None:
    once = recovered_card(pruned_card(tmp_path, None), RECOVERED)
    twice = recovered_card(once, {**RECOVERED, "steps": 7})
    assert twice.index("60 steps of 16") < twice.index("7 steps of 16") and twice.count(NO_CLAIM) == 1
    assert recovered_card(once, {"tuning": "lora"}) == once, "an unfinished training changes nothing"


def test_a_dense_model_that_is_fine_tuned_keeps_its_card_below() -> None:
    text = recovered_card(FRONT + BODY, RECOVERED)
    assert read(text).sections[ORIGINAL] == BODY and HubCard(text).data.license == "mit"
    assert "model-index" not in text and "org/older" not in text, "its results are not those of the new weights"
    assert list(read(recovered_card("", RECOVERED)).sections) == [TUNED, QUALITY]


@pytest.mark.parametrize(
    ("text", "front", "body"),
    [
        ("", {}, ""),
        ("# Only text\n", {}, "# Only text"),
        ("---\r\nlicense: mit\r\n---\r\n# A\r\n\r\nb\r\n", {"license": "mit"}, "# A\n\nb"),
        ("\ufeff---\nlicense: mit\n---\nA\n", {"license": "mit"}, "A"),
        ("---\nlicense: mit\n---\nA\n\n---\n\nB\n---\n", {"license": "mit"}, "A\n\n---\n\nB\n---"),
        ("A\n---\nlicense: mit\n---\n", {}, "A\n---\nlicense: mit\n---"),
        ("---\nlicense: [mit\n---\nA\n", {}, "A"),
        ("---\nA rule above and below.\n---\nB\n", {}, "---\nA rule above and below.\n---\nB"),
        ("---\nlicense: mit\n", {}, "---\nlicense: mit"),
        ("---\n---\nA", {}, "A"),
        ("---\ndescription: |\n  a\n  --- b\n---\nA", {"description": "a\n--- b\n"}, "A"),
        ("---\nlicense: mit\n---", {"license": "mit"}, ""),
    ],
)
def test_front_matter_of_readmes_in_the_wild(text: str, front: dict[str, Any], body: str, tmp_path: Path) -> None:
    assert split(text) == (front, body)
    card = HubCard(pruned_card(tmp_path, text))
    assert card.data.license == front.get("license") and card.data.base_model == "org/dense"
    assert card.text.rstrip().endswith(body or "None.")


LINES = (
    st.text(st.characters(exclude_categories=("Cs", "Cc")), min_size=1)
    .map(str.strip)
    .filter(lambda text: text and not text.startswith("## "))
)


@given(title=LINES, made=LINES, original=st.lists(st.one_of(LINES, st.just("---"), st.just(f"## {MADE}")), min_size=1))
def test_what_is_rendered_is_read_back(title: str, made: str, original: list[str]) -> None:
    sections = {MADE: made, QUALITY: NO_CLAIM, ORIGINAL: "\n\n".join(original)}
    card = ModelCard({"license": "mit", "tags": ["a"]}, title, sections)
    assert read(render(card)) == card


def test_only_what_holds_for_a_derived_model_is_inherited() -> None:
    assert inherited({"license": "mit", "tags": "one", "widget": 1, "base_model": "b"}) == {"license": "mit"}
    assert inherited({"tags": ["b", 1]}, "pruned") == {"tags": ["1", "b", "pruned"]}


def test_what_a_model_is_for_and_who_may_have_it_stays(tmp_path: Path) -> None:
    gate = {"Name": "text", "Country": {"type": "select", "options": ["a", "b"]}}
    front = {
        "pipeline_tag": "text-generation",
        "library_name": "transformers",
        "datasets": ["a/b"],
        "extra_gated_prompt": "You agree to ...",
        "extra_gated_fields": gate,
        "extra_gated_button_content": "I agree",
    }
    readme = f"---\n{yaml.safe_dump({**front, 'model-index': [], 'widget': 1})}---\n{BODY}"
    pruned = pruned_card(tmp_path, readme)
    run = json.loads(EXAMPLE.read_text(encoding="utf-8"))
    for text in (pruned, recovered_card(pruned, RECOVERED), hub_card(run, "selective-S-0.2", read(pruned))):
        kept = HubCard(text).data.to_dict()
        assert {key: kept.get(key) for key in front} == front and "widget" not in kept


@pytest.mark.parametrize("value", [[{"a": 1}], {"a": {"b": {"c": 1}}}, {str(i): 1 for i in range(65)}, {"a": [[1]]}])
def test_other_fields_of_a_gate_are_left_out(value: Any) -> None:
    assert inherited({"extra_gated_fields": value, "extra_gated_x": {"a": 1}, "extra_gated_": "a"}) == {}

"""README.md of a pruned checkpoint, in the Hub's form: what it was made from and how, and how to load it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from harness.core.bounded_read import read_text
from harness.core.labels import width_text
from harness.core.model_card import MADE, NO_CLAIM, ORIGINAL, QUALITY, TUNED, ModelCard, inherited, read, render
from harness.core.text import code_span, markdown

_MADE = """Made from {model} by structured pruning of {what}{times}. {how}

{loading} What exactly was removed: `pruning/plan.safetensors` ({kept}) and `pruning.json`.
A LoRA adapter of the dense model does not fit{adapter}. Train one on this checkpoint."""
_NEURONS = ("FFN neurons", "the kept neurons of every layer", ": the FFN matrices have other shapes")
_ENTRIES = ("the vocabulary", "the kept entries", " where it has a part for the embedding or the LM head")
_BOTH = ("FFN neurons and the vocabulary", "the kept neurons of every layer and the kept entries", _NEURONS[2])
_STEP = """Method {method}{metric}, scored on {tokens} tokens, allocation {allocation}{compensated}. FFN width
{before} -> {after}."""
_TRIMMED = "Vocabulary {} -> {} entries, the tokenizer's files with it."
AS_USUAL = "vLLM and transformers load it as it is."
BY_PLUGIN = (
    "vLLM loads it where harness-prune is installed (it registers the architecture); "
    "in Python: `pruning.loader.load_pruned`."
)
BY_DECILM = (
    "vLLM loads it with `--trust-remote-code`, for the configuration class in this folder, and needs nothing else; "
    "transformers does not load it."
)


def model_card(record: Mapping[str, Any], widths: Sequence[int], model: Path) -> str:
    """The card of a pruned checkpoint.

    Args:
        record: pruning.json.
        widths: intermediate_size of each layer after pruning.
        model: the folder that was pruned, whose card is taken over: licence, language, tags and other metadata, and its
            text.
    """
    name, is_public = str(record["model"]), record["model_kind"] in ("hub", "alias")
    readme = model / "README.md"
    before = read(read_text(readme, errors="replace") if readme.exists() else "")
    made = _MADE.format(
        model=code_span(name if is_public else Path(name).name),
        **dict(zip(("what", "kept", "adapter"), _pruned(record["steps"]), strict=True)),
        **_steps(record["steps"]),
        loading=AS_USUAL if len(set(widths)) == 1 else BY_PLUGIN,
    )
    removed = 1 - sum(widths) / (record["dense_intermediate_size"] * len(widths))
    base = {"base_model": name} if record["model_kind"] == "hub" else {}
    sections = {
        MADE: made,
        TUNED: before.sections.get(TUNED, ""),
        QUALITY: NO_CLAIM,
        ORIGINAL: before.sections.get(ORIGINAL) or "None.",
    }
    parts = [f"{removed:.1%} of the FFN neurons removed"] if _pruned(record["steps"]) != _ENTRIES else []
    parts += [f"vocabulary of {after}" for _, after in _vocabularies(record["steps"])[-1:]]
    title = ", ".join([markdown(Path(name).name), *parts])
    return render(ModelCard({**inherited(before.front, "pruned"), **base}, title, sections))


def _vocabularies(steps: Sequence[Mapping[str, Any]]) -> list[Sequence[int]]:
    return [step["vocabulary"] for step in steps if step.get("vocabulary")]


def _pruned(steps: Sequence[Mapping[str, Any]]) -> tuple[str, str, str]:
    """What was pruned, what the plan holds, and which tensors have other shapes."""
    neurons = any(_removes_neurons(step) for step in steps)
    return (_BOTH if neurons else _ENTRIES) if _vocabularies(steps) else _NEURONS


def _removes_neurons(step: Mapping[str, Any]) -> bool:
    return any(width != step["intermediate_size"] for width in step["widths"])


def _steps(steps: Sequence[Mapping[str, Any]]) -> dict[str, str]:
    """How often it was pruned, and how each time."""
    told = [_step(step) for step in steps]
    if len(told) == 1:
        return {"times": "", "how": told[0]}
    first, last = steps[0]["intermediate_size"], width_text(steps[-1]["widths"])
    lines = "\n".join(f"{number}. {text}" for number, text in enumerate(told, 1))
    return {"times": f" in {len(told)} steps, FFN width {first} -> {last} in all", "how": f"\n\n{lines}"}


def _step(step: Mapping[str, Any]) -> str:
    if not step.get("vocabulary"):
        return _neurons(step)
    entries = _TRIMMED.format(*step["vocabulary"])
    return f"{_neurons(step)} {entries}" if _removes_neurons(step) else f"{_tuning(step)}{entries}"


def _neurons(step: Mapping[str, Any]) -> str:
    uniform = len(set(step["widths"])) == 1
    text = _STEP.format(
        method=code_span(step["method"]),
        metric=f", metric {code_span(step['metric'])}" if step["metric"] else "",
        tokens="prompt and completion" if step["tokens"] == "all" else markdown(step["tokens"]),
        allocation=markdown(step["allocation"]),
        compensated=_refit(step),
        before=step["intermediate_size"],
        after=width_text(step["widths"]) + ("" if uniform else ", non-uniform"),
    )
    return f"{_tuning(step)}{text}".replace("\n", " ")


def _tuning(step: Mapping[str, Any]) -> str:
    """That the model was fine-tuned before a step, and on what."""
    recovery = step.get("recovery")
    return "" if recovery is None else f"After fine-tuning on {markdown(recovery.get('source', 'an unknown source'))}. "


def _refit(step: Mapping[str, Any]) -> str:
    if not step["compensated"]:
        return ""
    how = " layer after layer" if step["sequential"] else ""
    general = f", {step['general_weight']:.0%} general text in what they preserve" if step["general_weight"] else ""
    return f", the remaining down_proj columns re-fitted{how}{general}"

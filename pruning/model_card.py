"""README.md of a pruned checkpoint, in the Hub's form: what it was made from and how, and how to load it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from harness.core.bounded_read import read_text
from harness.core.labels import STRUCTURE_NOUNS, width_text
from harness.core.model_card import MADE, NO_CLAIM, ORIGINAL, QUALITY, TUNED, ModelCard, inherited, read, render
from harness.core.text import code_span, markdown

_MADE = """Made from {model} by structured pruning of {what}{times}. {how}

{loading} What exactly was removed: `pruning/plan.safetensors` (what is kept of every layer) and `pruning.json`.
A LoRA adapter of the dense model does not fit{adapter}. Train one on this checkpoint."""
_SHAPES, _ROWS = ": matrices have other shapes", " where it has a part for the embedding or the LM head"
_STEP = """Method {method}{metric}, scored on {tokens} tokens, allocation {allocation}{compensated}. {sizes}."""
_SKIPS = {"skip_attention": "attention", "skip_ffn": "FFN"}
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
        **_steps(record["steps"]),
        what=_what(record["steps"]),
        adapter=_SHAPES if any(map(_removes_more, record["steps"])) else _ROWS,
        loading=BY_PLUGIN if len(set(widths)) > 1 or _lacks_attention(record["steps"][-1]) else AS_USUAL,
    )
    removed = 1 - sum(widths) / (record["dense_intermediate_size"] * len(widths))
    base = {"base_model": name} if record["model_kind"] == "hub" else {}
    sections = {
        MADE: made,
        TUNED: before.sections.get(TUNED, ""),
        QUALITY: NO_CLAIM,
        ORIGINAL: before.sections.get(ORIGINAL) or "None.",
    }
    title = ", ".join([markdown(Path(name).name), *_titled(record["steps"], removed)])
    return render(ModelCard({**inherited(before.front, "pruned"), **base}, title, sections))


def _lacks_attention(step: Mapping[str, Any]) -> bool:
    """Whether a layer that stays has no attention."""
    return not set(step.get("skip_attention") or ()) <= set(step.get("skip_ffn") or ())


def _titled(steps: Sequence[Mapping[str, Any]], removed: float) -> list[str]:
    """What is left, for the title. removed: share of the FFN neurons."""
    parts = [f"vocabulary of {step['vocabulary'][1]}" for step in steps if step.get("vocabulary")][-1:]
    if any(step.get("structure") for step in steps):
        return [f"{_what(steps)} removed"]
    return [f"{removed:.1%} of the FFN neurons removed", *parts] if any(map(_removes_more, steps)) else parts


def _removes_more(step: Mapping[str, Any]) -> bool:
    """Whether a step removed more than entries of the vocabulary."""
    narrowed = any(width != step["intermediate_size"] for width in step["widths"])
    return narrowed or bool(step.get("structure")) or not step.get("vocabulary")


def _what(steps: Sequence[Mapping[str, Any]]) -> str:
    """What was removed, in the order of the steps."""
    return " and ".join(dict.fromkeys(noun for step in steps for noun in _nouns(step)))


def _nouns(step: Mapping[str, Any]) -> list[str]:
    units = [f"{STRUCTURE_NOUNS[step.get('structure', 'neuron')]}s"] if _removes_more(step) else []
    return [*units, "entries of the vocabulary"] if step.get("vocabulary") else units


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
        return _units(step)
    entries = _TRIMMED.format(*step["vocabulary"])
    return f"{_units(step)} {entries}" if _removes_more(step) else f"{_tuning(step)}{entries}"


def _units(step: Mapping[str, Any]) -> str:
    text = _STEP.format(
        method=code_span(step["method"]),
        metric=f", metric {code_span(step['metric'])}" if step["metric"] else "",
        tokens="prompt and completion" if step["tokens"] == "all" else markdown(step["tokens"]),
        allocation=markdown(step["allocation"]),
        compensated=_refit(step),
        sizes=_sizes(step),
    )
    return f"{_tuning(step)}{text}".replace("\n", " ")


def _sizes(step: Mapping[str, Any]) -> str:
    """What the step left, in numbers."""
    if heads := step.get("kv_heads"):
        return f"KV heads {step['num_key_value_heads']} -> {width_text(heads)}"
    skips = [f"no {name} in layers {', '.join(map(str, step[key]))}" for key, name in _SKIPS.items() if step.get(key)]
    if skips and all(width == step["intermediate_size"] for width in step["widths"]):
        return "; ".join(skips).capitalize()
    uniform = "" if len(set(step["widths"])) == 1 else ", non-uniform"
    return "; ".join([f"FFN width {step['intermediate_size']} -> {width_text(step['widths'])}{uniform}", *skips])


def _tuning(step: Mapping[str, Any]) -> str:
    """That the model was fine-tuned before a step, and on what."""
    recovery = step.get("recovery")
    return "" if recovery is None else f"After fine-tuning on {markdown(recovery.get('source', 'an unknown source'))}. "


def _refit(step: Mapping[str, Any]) -> str:
    if not step["compensated"]:
        return ""
    how = " layer after layer" if step["sequential"] else ""
    general = f", {step['general_weight']:.0%} general text in what they preserve" if step["general_weight"] else ""
    projection = "o_proj" if step.get("structure") == "kv_group" else "down_proj"
    more = ", then each FFN optimised against the dense layer's output" if step.get("reconstructed") else ""
    return f", the remaining {projection} columns re-fitted{how}{general}{more}"

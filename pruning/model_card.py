"""README.md of a pruned checkpoint, in the Hub's form: what it was made from and how, and how to load it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from harness.core.bounded_read import read_text
from harness.core.hub_ids import is_hub_id
from harness.core.labels import width_text
from harness.core.model_card import MADE, NO_CLAIM, ORIGINAL, QUALITY, ModelCard, inherited, render, split
from harness.core.text import code_span, markdown

_MADE = """Made from {model} by structured pruning of FFN neurons. Method `{method}`{metric},
scored on {tokens} tokens, allocation {allocation}{compensated}. FFN width {before} -> {after}.

{loading} What exactly was removed: `pruning/plan.safetensors` (the kept neurons of every layer) and `pruning.json`."""
_AS_USUAL = "vLLM and transformers load it as it is."
_BY_PLUGIN = (
    "vLLM loads it where harness-prune is installed (it registers the architecture); "
    "in Python: `pruning.loader.load_pruned`."
)


def model_card(record: Mapping[str, Any], widths: Sequence[int], model: Path) -> str:
    """The card of a pruned checkpoint.

    Args:
        record: pruning.json.
        widths: intermediate_size of each layer after pruning.
        model: the folder of the original, whose card is taken over: licence, language and tags, and its text.
    """
    before, name, uniform = record["dense_intermediate_size"], str(record["model"]), len(set(widths)) == 1
    readme = model / "README.md"
    front, original = split(read_text(readme, errors="replace") if readme.exists() else "")
    made = _MADE.format(
        model=code_span(_public_name(name)),
        method=record["method"],
        metric=f", metric {code_span(record['metric'])}" if record["metric"] else "",
        tokens="prompt and completion" if record["tokens"] == "all" else record["tokens"],
        allocation=record["allocation"],
        compensated=_refit(record),
        before=before,
        after=width_text(widths) + ("" if uniform else ", non-uniform"),
        loading=_AS_USUAL if uniform else _BY_PLUGIN,
    )
    removed = 1 - sum(widths) / (before * len(widths))
    base = {"base_model": name} if is_hub_id(name) else {}
    return render(
        ModelCard(
            front={**inherited(front, "pruned"), **base},
            title=f"{markdown(Path(name).name)}, {removed:.1%} of the FFN neurons removed",
            sections={MADE: made, QUALITY: NO_CLAIM, ORIGINAL: original or "None."},
        )
    )


def _refit(record: Mapping[str, Any]) -> str:
    if not record["compensated"]:
        return ""
    how = " layer after layer" if record["sequential"] else ""
    general = f", {record['general_weight']:.0%} general text in what they preserve" if record["general_weight"] else ""
    return f", the remaining down_proj columns re-fitted{how}{general}"


def _public_name(model: str) -> str:
    """A Hub id unchanged; of a folder only its name, not its path."""
    return model if is_hub_id(model) else Path(model).name

"""README.md of a pruned checkpoint, in the Hub's form: what it was made from and how, and how to load it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

_CARD = """---
{front}
---
# {name}, {share:.1%} of the FFN neurons removed

Made from `{model}` by structured pruning of FFN neurons. Method `{method}`{metric}, scored on {tokens} tokens,
allocation {allocation}{compensated}. FFN width {before} -> {after}.

{loading} What exactly was removed: `pruning/plan.safetensors` (the kept neurons of every layer) and `pruning.json`.
This card makes no claim about quality: measure it on your task.

## The original's own card

{original}
"""


def model_card(record: Mapping[str, Any], widths: Sequence[int], model: Path) -> str:
    before = record["dense_intermediate_size"]
    front, original = _split(model / "README.md")
    uniform = len(set(widths)) == 1
    return _CARD.format(
        front=_front_matter(front, str(record["model"])),
        name=Path(str(record["model"])).name,
        share=1 - sum(widths) / (before * len(widths)),
        model=_public_name(str(record["model"])),
        method=record["method"],
        metric=f", metric `{record['metric']}`" if record["metric"] else "",
        tokens="prompt and completion" if record["tokens"] == "all" else record["tokens"],
        allocation=record["allocation"],
        compensated=_refit(record),
        before=before,
        after=widths[0] if uniform else f"{min(widths)} to {max(widths)}, a width of its own in every layer",
        loading="vLLM and transformers load it as it is."
        if uniform
        else (
            "vLLM loads it where harness-prune is installed (it registers the architecture); "
            "in Python: `pruning.loader.load_pruned`."
        ),
        original=original or "None.",
    )


def _refit(record: Mapping[str, Any]) -> str:
    if not record["compensated"]:
        return ""
    how = " layer after layer" if record["sequential"] else ""
    general = f", {record['general_weight']:.0%} general text in what they preserve" if record["general_weight"] else ""
    return f", the remaining down_proj columns re-fitted{how}{general}"


def _split(readme: Path) -> tuple[str, str]:
    """Front matter and body of the original's README.md."""
    if not readme.exists():
        return "", ""
    text = readme.read_text(encoding="utf-8", errors="replace")
    if not text.startswith("---\n") or "\n---" not in text[4:]:
        return "", text.strip()
    front, _, body = text[4:].partition("\n---")
    return front, body.strip()


def _public_name(model: str) -> str:
    """A Hub id as it is; of a folder only its name, not where it lies on somebody's machine."""
    return model if _is_hub_id(model) else Path(model).name


def _is_hub_id(model: str) -> bool:
    return model.count("/") == 1 and not model.startswith(("/", ".")) and not Path(model).exists()


def _front_matter(front: str, model: str) -> str:
    """The original's licence, language and tags stay; what it was made from is added where it is a Hub id."""
    import yaml

    try:
        values = yaml.safe_load(front) or {}
    except yaml.YAMLError:
        values = {}
    values = values if isinstance(values, dict) else {}
    kept = {
        key: value
        for key, value in values.items()
        if key in ("license", "license_name", "license_link", "language", "tags")
    }
    tags = kept.get("tags")
    kept["tags"] = sorted({*(map(str, tags) if isinstance(tags, list) else ()), "pruned"})
    if _is_hub_id(model):
        kept["base_model"] = model
    return str(yaml.safe_dump(kept, sort_keys=True).strip())

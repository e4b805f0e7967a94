"""Other tools that prune, each called as its own README says; a plain checkpoint comes out, saved in BF16.

They stay out of this project's environment, in a folder of their own:

    pip install --no-deps --target /tmp/peers optipfair==0.4.2 torch-pruning==1.6.1
    PYTHONPATH=/tmp/peers python -m benchmarks.peers
"""

from __future__ import annotations

import importlib.util
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Literal

from harness.core.progress import say
from harness.core.types.calibration import CalibrationSet
from harness.models.tokenizer import load_tokenizer
from pruning.checkpoint import ModelFolder, open_model

TOOLS: Mapping[str, str] = {"optipfair": "optipfair==0.4.2", "torch_pruning": "torch-pruning==1.6.1"}
BATCH = 8  # texts, padded to the longest of them


class Batches(list):  # type: ignore[type-arg]
    """optipfair asks a loader for its batches and its batch size."""

    batch_size = BATCH


def without_missing(arms: Mapping[str, str | None], wanted: Sequence[str]) -> list[str]:
    """The wanted arms whose tool can be imported; says in one line of each tool that cannot what it leaves out.

    arms: arm -> the module that it needs, None for this project's own.
    """
    missing = [tool for tool in TOOLS if importlib.util.find_spec(tool) is None]
    for tool in missing:
        if left := [arm for arm in wanted if arms[arm] == tool]:
            say(f"{TOOLS[tool]} is not installed, so without {', '.join(left)}; benchmarks/peer_tools.py says how")
    return [arm for arm in wanted if arms[arm] not in missing]


def optipfair_width(
    percentage: float, model: ModelFolder, calibration: CalibrationSet, threads: int, out: Path
) -> ModelFolder:
    """Its data-driven MAW on the calibration texts, `percentage` of every layer's FFN neurons removed."""
    from optipfair import prune_model

    dense = loaded(model, threads)
    return saved(
        prune_model(
            dense,
            "MLP_GLU",
            "MAW",
            pruning_percentage=percentage,
            dataloader=_batches(calibration, dense.device),
            show_progress=False,
        ),
        model,
        out,
    )


def optipfair_depth(
    count: int, model: ModelFolder, calibration: CalibrationSet, threads: int, out: Path
) -> ModelFolder:
    """The `count` layers removed whose output is nearest to their input by the cosine, on the calibration texts."""
    from optipfair import analyze_layer_importance, prune_model

    dense = loaded(model, threads)
    importance = analyze_layer_importance(dense, _batches(calibration, dense.device), show_progress=False)
    least = sorted(importance, key=importance.__getitem__)[:count]
    say(f"optipfair removes layers {sorted(least)}")
    return saved(prune_model(dense, "DEPTH", layer_indices=least, show_progress=False), model, out)


def torch_pruning_width(
    importance: Literal["l2", "taylor"],
    width: int,
    model: ModelFolder,
    calibration: CalibrationSet,
    threads: int,
    out: Path,
) -> ModelFolder:
    """FFN neurons removed by Torch-Pruning's group importance, `width` of every layer stay.

    l2: the magnitude of its example for language models. taylor: |weight * gradient| of the loss summed over the
    task's calibration texts, the criterion of LLM-Pruner, which is built on this tool.
    """
    import torch_pruning as tp

    dense = loaded(model, threads)
    if importance == "taylor":
        _add_gradients(dense, calibration)
        estimate = tp.importance.GroupTaylorImportance()
    else:
        estimate = tp.importance.GroupMagnitudeImportance(p=2)
    pruner = tp.pruner.BasePruner(
        dense,
        example_inputs=_batches(calibration, dense.device)[0][0][:1, :BATCH],
        importance=estimate,
        pruning_ratio=1 - (width + 0.5) / model.shape.intermediate_size,  # it keeps int((1 - ratio) * width)
        ignored_layers=list(_outside_ffn(dense)),
        forward_fn=lambda traced, ids: traced(ids, use_cache=False).logits,
    )
    pruner.step()
    dense.config.intermediate_size = width
    return saved(dense, model, out)


def _outside_ffn(model: Any) -> Iterator[Any]:
    """The linear layers whose outputs stay: all but gate and up projections."""
    import torch

    for name, module in model.named_modules():
        if isinstance(module, torch.nn.Linear) and not name.endswith(("gate_proj", "up_proj")):
            yield module


def _add_gradients(model: Any, calibration: CalibrationSet) -> None:
    """Of the summed next-token loss of the task's texts, into `.grad`."""
    from torch.nn.functional import cross_entropy

    from pruning.activations import pad

    items = [item for item in calibration.items if item.target]
    for first in range(0, len(items), BATCH):
        ids, attention, _ = pad(items[first : first + BATCH], model.device)
        labels = ids.masked_fill(attention == 0, -100)[:, 1:]
        logits = model(ids, attention_mask=attention, use_cache=False).logits[:, :-1]
        loss = cross_entropy(logits.flatten(0, 1), labels.flatten(), reduction="sum")
        loss.backward()  # type: ignore[no-untyped-call]


def _batches(calibration: CalibrationSet, device: Any) -> Batches:
    from pruning.activations import pad

    items = calibration.items
    return Batches(pad(items[first : first + BATCH], device)[:2] for first in range(0, len(items), BATCH))


def loaded(model: ModelFolder, threads: int) -> Any:
    """By transformers, in FP32."""
    import torch
    from transformers import AutoModelForCausalLM

    torch.set_num_threads(threads)
    return AutoModelForCausalLM.from_pretrained(model.path, dtype=torch.float32).eval()


def saved(smaller: Any, model: ModelFolder, out: Path) -> ModelFolder:
    """In BF16, with the dense model's tokenizer."""
    import torch

    smaller.to(torch.bfloat16).save_pretrained(out)
    load_tokenizer(model).save_pretrained(out)
    return open_model(out)

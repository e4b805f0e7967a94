"""Writes a model as one folder for every width, and one of its widths as a folder of its own."""

from __future__ import annotations

import json
import shlex
from pathlib import Path

from harness.config.settings import RunConfig
from harness.core.progress import progress_bar
from harness.core.types.pruning import NeuronScores
from harness.core.written_folder import check_replaceable
from harness.models import registry
from harness.models.recorded import locate_given
from harness.pipeline.arms import alignment_of
from pruning.checkpoint import ModelFolder
from pruning.elastic import (
    Order,
    check_elastic,
    elastic_replaceable,
    load_order,
    narrowed,
    order_of,
    write_elastic,
)
from pruning.export import replaceable
from pruning.plan import PlanRequest, choose_metric


def elastic(model: str, scores: NeuronScores, config: RunConfig, out: Path) -> tuple[ModelFolder, Order]:
    """Writes `model` with the neurons of every layer in the order in which they stay.

    Args:
        model: The dense model that was scored.
        scores: As read from their file.
        config: Method, metric, seed and alignment of the widths that are named.
        out: The folder to write.

    Raises:
        UsageError: The scores are another model's or lack the metric.
        UnsupportedModelError: vLLM would not take the leading neurons of this family's tensors.
    """
    check_replaceable(out, elastic_replaceable())
    size = next(iter(scores.scores.values())).shape[1]
    metric, _ = choose_metric(config.method, config.metric, False)
    alignment = alignment_of(config, size)
    order = order_of(scores, PlanRequest(0.0, config.method, metric, config.seed, alignment))
    found = locate_given(model, scores.model, scores.model_kind)
    check_elastic(found.family)
    with progress_bar(f"Writing {out}", len(found.shards)) as advance:
        return write_elastic(found, order, out, advance), order


def slice_width(folder: str, width: int, out: Path) -> ModelFolder:
    """Writes one width of an elastic folder as a checkpoint of its own.

    Args:
        folder: A folder, also where an alias has the same name; or a Hub id.
        width: FFN neurons of every layer.
        out: The folder to write.

    Raises:
        UsageError: `folder` is no elastic folder, or not that wide.
    """
    check_replaceable(out, replaceable())
    path = Path(folder)
    found = registry.locate(str(path.absolute()) if path.is_dir() else folder, "general")
    load_order(found)
    with progress_bar(f"Writing {out}", len(found.shards)) as advance:
        return narrowed(found, width, out, advance)


def serve_at(folder: ModelFolder, width: int) -> str:
    """The plain vLLM command that serves an elastic folder at a width."""
    overrides = json.dumps({folder.family.width_key: width})
    return shlex.join(["vllm", "serve", str(folder.path), "--hf-overrides", overrides])

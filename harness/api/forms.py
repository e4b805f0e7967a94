"""Other forms of a checkpoint: for a way of serving, of every width, with a smaller vocabulary."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from harness.core.types.pruning import Method, NeuronScores, PruningPlan
from harness.engine.engine_settings import engine_settings
from harness.engine.library_settings import import_effects, library_settings
from harness.pipeline.python_arguments import (
    Config,
    Model,
    Names,
    Place,
    file_of,
    model_name,
    out_path,
    settings_from,
)
from pruning.checkpoint import ModelFolder

if TYPE_CHECKING:
    from harness.pipeline.export import Exported
    from harness.pipeline.vocabulary import TrimmedVocabulary


@import_effects()
def export(source: PruningPlan | Model, to: str | None = None, out: Place = None) -> Exported:
    """Writes a plan or a checkpoint in the form that a way of serving needs, as `harness export` does.

    Args:
        source: A plan or its file, whose model is looked for where it was; or a checkpoint folder.
        to: vllm, decilm, plugin or gguf. Default: the first of them that can hold it.
        out: The folder to write, or the file for gguf.

    Returns:
        home, path, needs and serve: what was written, what serving it takes, and the command.

    Raises:
        UsageError: This form cannot hold it, or the model is gone.

    Example: `harness.export("plan.safetensors", to="decilm", out="served").serve`
    """
    from harness.pipeline.export import export_to

    return export_to(
        file_of(source) if isinstance(source, PruningPlan) else Path(model_name(source)), to, out_path(out, "exported")
    )


@import_effects()
def elastic(
    model: Model,
    scores: NeuronScores | str | Path,
    out: Place = None,
    *,
    method: Method | None = None,
    metric: str | None = None,
    config: Config | None = None,
    **settings: Any,
) -> ModelFolder:
    """Writes a model as one folder that stock vLLM serves at any FFN width, as `harness elastic` does.

    Args:
        model: The dense model that was scored.
        scores: From `score`, or their file.
        out: The folder to write.
        method: selective, random or reverse. Default: selective.
        metric: The ranking. Default: best; nothing is re-fitted.
        settings: seed, and align of the widths that are named.

    Returns:
        The folder, at its full width; `slice_width` writes a narrower checkpoint of it.

    Raises:
        UsageError: The scores are another model's or lack the metric.
        UnsupportedModelError: vLLM would not take the leading neurons of this family's tensors.

    Example: `folder = harness.elastic("tiny-math", scores, out="elastic")`
    """
    from harness.pipeline.elastic import elastic as write
    from pruning import score_file

    found = settings_from(config, {"method": method, "metric": metric, **settings})
    loaded = scores if isinstance(scores, NeuronScores) else score_file.load(Path(scores))
    return write(model_name(model), loaded, found, out_path(out, "elastic"))[0]


@import_effects()
def slice_width(folder: Model, width: int, out: Place = None) -> ModelFolder:
    """Writes one width of an elastic folder as a checkpoint of its own, as `harness slice` does.

    Args:
        folder: From `elastic`.
        width: FFN neurons of every layer.
        out: The folder to write.

    Raises:
        UsageError: `folder` is no elastic folder, or not that wide.

    Example: `harness.slice_width(folder, 512, out="narrow").weight_bytes`
    """
    from harness.pipeline.elastic import slice_width as write

    return write(model_name(folder), width, out_path(out, "checkpoint"))


@import_effects()
def vocabulary(
    model: Model | None = None,
    task: Names | None = None,
    *,
    size: int,
    texts: Sequence[str | Path] = (),
    plan: PruningPlan | str | Path | None = None,
    out: Place = None,
    dry_run: bool = False,
    verify: bool = False,
    config: Config | None = None,
    **settings: Any,
) -> TrimmedVocabulary:
    """Writes the checkpoint that keeps the entries of a vocabulary which tasks need, as `harness vocabulary` does.

    Args:
        model: Default: the embedded tiny-math.
        task: The tasks whose training texts decide. Default: the one that the model's alias is for.
        size: Entries that stay, rounded up to a multiple of 64.
        texts: JSON Lines files with further texts of the task.
        plan: A plan for the model's FFN neurons that is carried out as well, or its file.
        out: The folder to write.
        dry_run: Write nothing; the sizes are those that the files would have.
        verify: Compare it, in transformers and in vLLM, with the original on texts whose tokens stay.

    Returns:
        vocabulary, parameters and weight_bytes before and after, and tokens per text.

    Raises:
        UsageError: The size cannot be, the plan is another model's, or a file of texts cannot be read.
        UnsupportedModelError: The tokenizer is no byte-level BPE.
        MeasurementError: Logits or tokens differ by more than rounding.

    Example: `harness.vocabulary("tiny-math", size=320, dry_run=True).parameters`
    """
    from harness.pipeline.vocabulary import VocabularyRequest, trim_vocabulary

    found = settings_from(config, {"model": model, "task": task, **settings}, check_names=False)
    request = VocabularyRequest(size, tuple(map(Path, texts)), None if plan is None else file_of(plan))
    with library_settings(found.threads, found.trust_data):
        verify_by = engine_settings(found) if verify else None
        return trim_vocabulary(found, request, out_path(out, "checkpoint"), dry_run, verify_by)

"""`harness run` and `harness recover`: which stage runs when."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TypeVar

from harness.config.settings import RunConfig, config_yaml, environment_settings
from harness.core.files import check_disk, write_text
from harness.core.progress import say
from harness.core.run_directory import RunDirectory, check_run_directory, locked
from harness.core.types.run import RunResult
from harness.engine.devices import check_divides
from harness.engine.engine_settings import engine_settings
from harness.engine.memory_budget import NOTHING_TIMED, fit_together
from harness.engine.vllm_engine import check_libraries, check_options
from harness.models import registry
from harness.models.skeleton import check_buildable
from harness.models.tokenizer import load_chat
from harness.pipeline import stages
from harness.pipeline.collect import collect
from harness.pipeline.data_check import check_data
from harness.pipeline.dry_run import second_moments
from harness.pipeline.resolve import ResolvedRun, resolve, resolve_recovery
from harness.pipeline.run_context import RunContext, VariantState, defaults_of
from harness.pipeline.run_files import scores_file
from harness.pipeline.run_json import publish
from harness.pipeline.scoring import moments_folder
from harness.serving.workload import check_context
from harness.training import fine_tuning
from harness.training.original import needs_original, original_of
from pruning.families import FAMILIES
from pruning.structures import check_plain

Made = TypeVar("Made")


def run(config: RunConfig, out: Path | None, fresh: bool, command: str | None = None) -> tuple[RunResult, Path]:
    """Scores, prunes, evaluates and times one model; with `config.recover` also fine-tunes.

    Args:
        config: All settings of the run.
        out: The run directory; None: runs/MODEL-TASK-VARIANT.
        fresh: Start over, rather than resume what is in the directory.
        command: The command line, for run.json; None where Python code calls.

    Returns:
        The result, as in run.json, and the run directory.

    Raises:
        HarnessError: One of its kinds, with what to do about it.
    """
    return start(config, out, fresh, command, resolve, run_all)


def recover(config: RunConfig, out: Path | None, fresh: bool, command: str | None = None) -> tuple[RunResult, Path]:
    """Fine-tunes a model as it is, or pruned in each way of `config.arms`, and evaluates before and after.

    Args, returns and raises as `run`.
    """
    return start(config, out, fresh, command, resolve_recovery, run_all)


def start(
    config: RunConfig,
    out: Path | None,
    fresh: bool,
    command: str | None,
    resolver: Callable[[RunConfig, bool], ResolvedRun],
    work: Callable[[RunContext], Made],
) -> tuple[Made, Path]:
    """Checks what can be checked early, then does `work` in a locked run directory."""
    spec = resolver(config, True)
    if spec.arms:
        check_plain(config.structure, config.allocation, FAMILIES[spec.shape.model_type])
    check_data(spec)
    folder = out or spec.default_out
    check_run_directory(folder)
    model = registry.locate(config.model, spec.target.kind)
    check_buildable(model)
    check_divides(config.model, model.shape, model.widths, config.tensor_parallel)
    chat = load_chat(model, config.template_args)[1]
    spec = resolver(config, chat is not None)
    folder = out or spec.default_out
    if spec.rounded:
        say(spec.rounded)
    if spec.recovered:
        fine_tuning.check_dependencies(config.recovery, defaults_of(spec), spec.target)
        if needs_original(config.recovery):
            original_of(model)
    check_libraries(model)
    check_options(model, engine_settings(config))
    check_disk(folder, _disk_bytes(spec, folder, fresh))
    settings = {**spec.settings, "fingerprint": model.fingerprint}
    with locked(folder):
        directory = RunDirectory(folder)
        directory.open(settings, fresh, command, environment_settings())
        with directory.working():
            write_text(folder / "config.yaml", config_yaml(config))
            return work(RunContext(spec, model, directory)), folder


def _disk_bytes(spec: ResolvedRun, folder: Path, fresh: bool) -> int:
    """Of all checkpoints, and of the second moments that are not written yet. These go before the fine-tuning, in
    sweeps and searches of widths before the first checkpoint.
    """
    one = spec.shape.parameters * spec.shape.dtype_bytes
    scores, moments, to_write = scores_file(folder), second_moments(spec), 0
    if moments and (fresh or not scores.exists()):
        to_write = moments.disk_bytes - sum(file.stat().st_size for file in moments_folder(scores).glob("*"))
    if spec.sweep or (spec.goal and spec.structure != "joint"):
        return max((spec.exports + len(spec.fine_tunings)) * one, to_write)
    return spec.exports * one + max(len(spec.fine_tunings) * one, to_write)


def run_all(run: RunContext) -> RunResult:
    """Every stage in its order."""
    spec = run.spec
    if spec.served:
        check_context(run.model, run.workload)
    if spec.recovered:
        stages.gather_training_data(run)  # first: data that is refused should not cost a scoring
    variants = {run.base.name: run.base}
    if spec.arms:
        stages.score(run)
    for arm in spec.arms:
        variants[arm.name] = stages.export(run, stages.plan(run, arm))
    stages.delete_second_moments(run)
    for name in spec.recovered:
        recovered = stages.recover(run, variants[name])
        variants[recovered.name] = recovered
    measure(run, variants)
    result = collect(run.directory, spec, list(variants.values()), run.chat)
    publish(result, run.path)
    return result


def _timed_together(run: RunContext, asked: Sequence[VariantState]) -> Sequence[VariantState]:
    """Those of the variants for whose engines the device has room at the same time: all, two, or none."""
    if not asked:
        return ()
    for some in (asked, asked[:2]):
        if fit_together({state.name: state.folder for state in some}, run.config.tensor_parallel, run.config.dtype):
            break
    else:
        say(NOTHING_TIMED)
        return ()
    if len(some) < len(asked):
        names = " and ".join(state.name for state in some)
        say(f"only {names} are timed side by side; the device has no room for more")
    return some


def measure(run: RunContext, variants: dict[str, VariantState]) -> None:
    """Evaluates every variant; those that are timed are loaded side by side, the others one at a time."""
    served = _timed_together(run, [variants[name] for name in run.spec.served])
    if served:
        with stages.open_engines(run, served) as engines:
            for state in served:
                stages.evaluate(run, state, engines)
            stages.serve(run, served, engines)
    together = {state.name for state in served}
    for state in variants.values():
        if state.name not in together:
            stages.evaluate_alone(run, state)

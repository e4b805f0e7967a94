"""One stage alone: `harness eval` and `harness bench` write a run directory with run.json from finished checkpoints."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from harness import models, scoring
from harness.builtin import evaluate_builtin, find_builtin
from harness.config import RunConfig
from harness.engine import Engines, prepare_environment
from harness.errors import UsageError
from harness.evaluate import evaluate
from harness.pipeline import context_length, longest_context, need_tools
from harness.progress import stage
from harness.results import build_run, variant, write_run
from harness.spec import check_tasks, task_names
from harness.store import RunDirectory, locked
from harness.types import EvalResult, RunResult, Variant
from pruning.checkpoint import describe, fingerprint, read_config
from pruning.families import shape_of
from tasks.registry import find_task, is_task


def evaluate_checkpoint(config: RunConfig, out: Path, fresh: bool, include_path: Path | None = None) -> RunResult:
    """Evaluates one model, dense or pruned, on the tasks of `config`; a name that is none of ours is lm-eval's, or of `include_path`."""
    prepare_environment(config.threads)
    names = task_names(config)
    ours = [name for name in names if is_task(name)]
    theirs = [name for name in names if name not in ours]
    manager = find_builtin(theirs, include_path) if theirs else None
    model = models.locate(config.model, find_task(ours[0]).kind if ours else "general")
    chat = scoring.has_chat_template(scoring.load_tokenizer(model))
    tasks = [find_task(name, chat) for name in ours]
    check_tasks(tasks, shape_of(read_config(model)))
    need_tools(tasks)
    row = _row(config.model, model, out)
    with locked(out):
        _open(out, config, [model], fresh)
        longest = longest_context(model) if theirs else context_length(model, tasks)
        with Engines({row.name: model}, config.dtype, config.threads, longest) as engines:
            llm = engines[row.name]
            found: dict[str, EvalResult] = {}
            with stage(f"Evaluating {row.name} on {', '.join(names)}"):
                if theirs:
                    found |= evaluate_builtin(
                        llm, config.model, theirs, manager, out, row.name, config.limit, longest, chat, fingerprint(model)
                    )
                if ours:
                    found |= evaluate(llm, config.model, tasks, out, row.name, config.limit, longest, chat, identity=fingerprint(model))
        first = tasks[0].name if names[0] in ours else next(iter(found))
        return _finish(out, config.model, first, [replace(row, eval=found)])


def bench_checkpoints(config: RunConfig, names: Sequence[str], out: Path, fresh: bool) -> RunResult:
    """Throughput and latency of several models on the same prompts of one task, in turns."""
    from harness.serving import measure

    prepare_environment(config.threads)
    task = find_task(task_names(config)[0])
    paths = {_row_name(name): models.locate(name, task.kind) for name in names}
    if len(paths) != len(names):
        raise UsageError("two of the models have the same name; give folders with different names")
    rows = {name: _row(name, path, out) for name, path in paths.items()}
    with locked(out):
        _open(out, config, list(paths.values()), fresh)
        first = next(iter(paths.values()))
        with Engines(paths, config.dtype, config.threads, context_length(first, [task])) as engines:
            prompts = scoring.task_prompts(first, task, max(config.concurrency))
            weights = {name: row.weight_bytes for name, row in rows.items()}
            running = {name: engines[name] for name in paths}
            with stage(f"Measuring {', '.join(paths)} in turns"):
                found = measure(running, prompts, config.concurrency, config.repeats, config.output_tokens, weights)
        return _finish(out, names[0], task.name, [replace(row, serving=found[name]) for name, row in rows.items()])


def _row_name(name: str) -> str:
    """A path's last two parts where the last says little, as in runs/x/checkpoint."""
    path = Path(name)
    return f"{path.parent.name}-{path.name}" if path.name == "checkpoint" else path.name


def _row(name: str, path: Path, out: Path) -> Variant:
    return variant(_row_name(name), describe(path), os.path.relpath(path, out) if Path(name).is_dir() else None)


def _open(out: Path, config: RunConfig, paths: Sequence[Path], fresh: bool) -> None:
    settings = {**config.model_dump(mode="json"), "fingerprints": [fingerprint(path) for path in paths]}
    RunDirectory(out).open(settings, fresh)


def _finish(out: Path, model: str, task: str, rows: Sequence[Variant]) -> RunResult:
    from reports.build import write_reports

    result = build_run(model, task, rows, [], {})
    write_run(result, out)
    write_reports(out)
    return result

"""What the stages of a run share (RunContext) and what they return (VariantState)."""

from __future__ import annotations

import functools
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from harness.config.settings import RunConfig
from harness.core.chat import ChatFormat
from harness.core.errors import MeasurementError
from harness.core.run_directory import RunDirectory
from harness.core.types.pruning import PredictedCheckpoint
from harness.evaluation.lm_eval_requests import EvalSpec
from harness.models.tokenizer import load_chat
from harness.pipeline.resolve import ResolvedRun
from harness.serving.workload import Workload, make_workload
from harness.training import fine_tuning
from pruning.checkpoint import ModelFolder
from tasks.task import Task

_LEAST_SECONDS = 0.5  # of a timed pass; short, since a run times beside its evaluation; `harness bench` takes 2 s


@dataclass(frozen=True)
class VariantState:
    """A variant as far as a run has made it.

    checkpoint: its sizes by formula until it is written, its folder from then on. identity: a hash of what its weights
    are made from; every measurement of it depends on this. plan: the plan that it is pruned by, None for the others.
    """

    name: str
    checkpoint: ModelFolder | PredictedCheckpoint
    identity: str
    plan: Path | None = None

    @property
    def folder(self) -> ModelFolder:
        """Raises MeasurementError where the checkpoint was not written."""
        if isinstance(self.checkpoint, ModelFolder):
            return self.checkpoint
        raise MeasurementError(f"the checkpoint of {self.name} was not written")


@dataclass(frozen=True)
class RunContext:
    """A locked run directory with the resolved configuration and the model of the run."""

    spec: ResolvedRun
    model: ModelFolder
    directory: RunDirectory

    @property
    def path(self) -> Path:
        return self.directory.path

    @property
    def config(self) -> RunConfig:
        return self.spec.config

    @functools.cached_property
    def base(self) -> VariantState:
        """The model as it was given, to which every other variant is compared."""
        return VariantState(self.spec.base, self.model, self.model.fingerprint)

    @functools.cached_property
    def chat(self) -> ChatFormat | None:
        return load_chat(self.model, self.config.template_args)[1]

    @functools.cached_property
    def workload(self) -> Workload:
        return replace(make_workload(self.config, self.model, self.spec.target), least_seconds=_LEAST_SECONDS)

    @functools.cached_property
    def max_model_len(self) -> int:
        """Tokens: enough for the tasks and for the requests that are timed."""
        return max(context_length(self.model, self.spec.tasks), self.workload.context if self.spec.served else 0)

    @functools.cached_property
    def eval_spec(self) -> EvalSpec:
        return EvalSpec(
            model_name=self.spec.model,
            tasks=self.spec.tasks,
            max_model_len=self.max_model_len,
            chat=self.chat,
            limit=self.config.limit,
            items=self.spec.items,
        )


def defaults_of(spec: ResolvedRun) -> fine_tuning.Defaults:
    """What decides the fine-tuning settings that were not given."""
    return fine_tuning.Defaults(spec.shape, spec.target.kind, spec.config.preset, spec.config.seed)


def context_length(model: ModelFolder, tasks: Sequence[Task]) -> int:
    """Tokens of prompt and answer that the tasks need, at most what the model can take."""
    return min(longest_context(model), max(task.max_new_tokens + task.prompt_tokens for task in tasks))


def longest_context(model: ModelFolder, most: int = 4096) -> int:
    """Tokens that the model can take, at most `most`."""
    return min(most, model.shape.max_position_embeddings)

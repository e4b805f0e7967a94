"""What a model is asked and how it is asked: lm-eval's requests, the engine's answers. Grading them needs no engine
(evaluate.py).
"""

from __future__ import annotations

import functools
import os
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from harness.core.chat import ChatFormat
from harness.core.errors import MeasurementError
from harness.core.hashing import digest
from harness.engine.generation_cache import GenerationCache
from harness.engine.library_settings import replaced
from harness.engine.lm_eval_model import METHODS, ResponseCallbacks, make_language_model
from harness_prune.vllm_name import vllm_version
from tasks.data import DATA_DIR
from tasks.grading import Grader
from tasks.lm_eval_files import manager_of
from tasks.task import Task


@dataclass(frozen=True)
class EvalSpec:
    """What is evaluated, the same for every variant.

    Attributes:
        model_name: As lm-eval's files should name the model.
        tasks: The target first.
        max_model_len: Tokens of prompt and answer that the engine takes.
        chat: How prompts are put into the chat template; None: they are plain.
        limit: The first items of each task; None: all.
        items: Of the first task, the items with these ids in place of the first `limit`.
        split: The split of the data set.
    """

    model_name: str
    tasks: tuple[Task, ...]
    max_model_len: int
    chat: ChatFormat | None
    limit: int | None = None
    items: tuple[int, ...] = ()
    split: str = "test"

    def chosen(self, task: Task) -> dict[str, Any]:
        """The task's items, as simple_evaluate takes them."""
        if self.items and task.name == self.tasks[0].name:
            return {"samples": {task.name: sorted(self.items)}}
        return {"limit": self.limit}


@dataclass(frozen=True)
class VariantEval:
    """The evaluation of one variant.

    Attributes:
        run: The run directory.
        variant: Its name in the run.
        identity: A hash of the weights. With one, generations are kept on disk as they come, and a killed evaluation
            resumes from them.
        reference: The variant whose answers the task similarity compares with, evaluated before; None: itself.
        dense: A hash of the reference's weights. With one, the distance to its own answers is measured (kl_to_dense).
    """

    run: Path
    variant: str
    identity: str = ""
    reference: str | None = None
    dense: str = ""

    @property
    def samples(self) -> Path:
        return self.run / "samples" / self.variant

    @property
    def generations(self) -> Path:
        return self.run / "generations" / self.variant

    @property
    def own_answers(self) -> Path:
        return self.run / "own_answers.safetensors"


@dataclass(frozen=True)
class TaskRequests:
    """All requests of a task, and the method of the language model that lm-eval calls with them."""

    task: Task
    method: str
    requests: tuple[Any, ...]


@dataclass(frozen=True)
class TaskResponses:
    """The engine's answers, in the order of the requests, and the seconds that they took."""

    asked: TaskRequests
    answers: tuple[Any, ...]
    seconds: float
    language_model: Any

    @property
    def task(self) -> Task:
        return self.asked.task

    def replayed(self) -> Any:
        """The language model, which now returns these answers, for the same requests only."""

        def answer(requests: Sequence[Any], **_: Any) -> list[Any]:
            if [request.args for request in requests] != [request.args for request in self.asked.requests]:
                raise MeasurementError(
                    f"lm-eval made other requests for {self.task.name} the second time; run again with --debug"
                )
            return list(self.answers)

        setattr(self.language_model, self.asked.method, answer)
        return self.language_model


class _RequestsCaptured(Exception):
    """Carries requests out of lm-eval before anything answers them."""

    def __init__(self, method: str, requests: Sequence[Any]) -> None:
        self.method, self.requests = method, tuple(requests)


def capture_requests(llm: Any, eval_spec: EvalSpec) -> list[TaskRequests]:
    """The requests that lm-eval makes, by its own code; the same for every variant of a model."""
    return [_capture(llm, eval_spec, task) for task in eval_spec.tasks]


def _capture(llm: Any, eval_spec: EvalSpec, task: Task) -> TaskRequests:
    listener = make_language_model(llm, eval_spec.max_model_len, eval_spec.chat)

    def see(method: str, requests: Sequence[Any], **_: Any) -> list[Any]:
        raise _RequestsCaptured(method, requests)

    for method in METHODS:
        setattr(listener, method, partial(see, method))
    try:
        run_lm_eval(listener, task, eval_spec)
    except _RequestsCaptured as seen:
        return TaskRequests(task, seen.method, seen.requests)
    raise MeasurementError(f"lm-eval makes no request for {task.name}; check the data set")


def ask(
    llm: Any,
    eval_spec: EvalSpec,
    requests: Sequence[TaskRequests],
    variant_eval: VariantEval,
    grader: Grader,
    advance: Callable[[int], None] | None = None,
) -> list[TaskResponses]:
    """The engine's answers to all requests.

    Args:
        llm: A vLLM engine with the variant's weights.
        requests: From capture_requests.
        grader: Begins to grade each answer as it comes.
        advance: Is called with 1 for every answer.
    """
    return [_ask_task(llm, eval_spec, of_task, variant_eval, grader, advance) for of_task in requests]


def _ask_task(
    llm: Any,
    eval_spec: EvalSpec,
    asked: TaskRequests,
    variant_eval: VariantEval,
    grader: Grader,
    advance: Callable[[int], None] | None,
) -> TaskResponses:
    task, started = asked.task, time.perf_counter()
    with ExitStack() as stack:
        file = variant_eval.generations / f"{task.name}.jsonl"
        generation_cache = (
            stack.enter_context(GenerationCache(file, identity_of(llm, variant_eval.identity)))
            if variant_eval.identity
            else None
        )
        submit = partial(grader.submit, task.grade) if task.grade and task.filter is None else None
        language_model = make_language_model(
            llm, eval_spec.max_model_len, eval_spec.chat, ResponseCallbacks(generation_cache, submit, advance)
        )
        answers = getattr(language_model, asked.method)(list(asked.requests))
    return TaskResponses(asked, tuple(answers), time.perf_counter() - started, language_model)


def identity_of(llm: Any, weights: str) -> str:
    """A hash of what greedy answers depend on, besides prompt and settings."""
    config = llm.llm_engine.vllm_config.model_config
    return digest([weights, str(config.dtype), config.max_model_len, vllm_version()])


def run_lm_eval(language_model: Any, task: Task, eval_spec: EvalSpec) -> Mapping[str, Any]:
    """What lm-eval's simple_evaluate returns for one task."""
    from lm_eval import simple_evaluate

    manager, loaded = _loaded(task.name, task.folder, eval_spec.split, os.environ.get(DATA_DIR))
    with lm_eval_caches():
        raw = simple_evaluate(
            language_model,
            tasks=[loaded],
            task_manager=manager,
            apply_chat_template=eval_spec.chat is not None,
            log_samples=True,
            bootstrap_iters=0,
            verbosity="ERROR",
            **eval_spec.chosen(task),
        )
    if not raw or not raw["samples"].get(task.name):
        raise MeasurementError(f"lm-eval returned no samples for {task.name}; run again with --debug")
    return dict(raw)


@functools.cache
def _loaded(task: str, folder: Path, split: str, _data: str | None) -> tuple[Any, Any]:
    """lm-eval's task manager and task with its data, which is the same for every variant."""
    manager = manager_of(folder)
    loaded = manager.load([task])["tasks"][task]
    if split != "test":  # a task of lm-eval's own may evaluate another split by itself
        loaded.config.test_split = split
    return manager, loaded


@contextmanager
def lm_eval_caches() -> Iterator[None]:
    """lm-eval asks pip for the environment in every call, and recompiles a task's template for every item: once a
    process will do. With a small model on a CPU, that took as long as its answers.
    """
    from lm_eval import evaluator, utils
    from torch.utils import collect_env

    environment, template = _cached_functions()
    with (
        # it runs git in the current folder, which prints an error outside a repository
        replaced(evaluator, get_git_commit_hash=lambda: None),
        replaced(collect_env, get_pretty_env_info=environment),
        replaced(utils.env, from_string=template),
    ):
        yield


@functools.cache
def _cached_functions() -> tuple[Callable[..., Any], Callable[..., Any]]:
    from lm_eval import utils
    from torch.utils import collect_env

    return functools.cache(collect_env.get_pretty_env_info), functools.lru_cache(utils.env.from_string)

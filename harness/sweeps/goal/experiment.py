"""`harness run` with a goal: scores once, then evaluates one candidate after the other on a live engine, each chosen by
what the ones before it kept; times and writes the model that is found.

A candidate that was evaluated is not evaluated again, so a search that was killed resumes.
"""

from __future__ import annotations

from contextlib import nullcontext
from dataclasses import replace
from pathlib import Path

from harness.config.settings import RunConfig
from harness.core.errors import MeasurementError
from harness.core.progress import say
from harness.core.statistics import is_able
from harness.core.types.evaluation import LIKELIHOOD_METRICS
from harness.core.types.goal import Candidate, Condition, GoalOutcome
from harness.core.types.run import RunResult
from harness.core.types.serving import SpeedRatio
from harness.engine.devices import device_name
from harness.evaluation.paired import read_correct
from harness.pipeline import stages
from harness.pipeline.arms import Arm
from harness.pipeline.collect import collect
from harness.pipeline.resolve import DENSE
from harness.pipeline.run import start
from harness.pipeline.run_context import RunContext, VariantState
from harness.pipeline.run_files import eval_file, samples_folder, serving_file
from harness.pipeline.run_json import publish, read_eval, read_serving
from harness.serving.workload import check_context
from harness.sweeps.batch import LiveCells, cell_key
from harness.sweeps.cells import Cell
from harness.sweeps.goal.conditions import (
    is_open,
    layer_conditions,
    loss_conditions,
    nearest,
    right_conditions,
    speed_condition,
)
from harness.sweeps.goal.resolve import SearchSpace, arm_at, limited_tasks, resolve_goal, search_space
from harness.sweeps.goal.search import first_true, narrowest
from harness.sweeps.joint.experiment import run_joint
from harness.sweeps.speed import measure_speed
from reports.sections.goal import condition_text


def run_goal(config: RunConfig, out: Path | None, fresh: bool, command: str | None = None) -> tuple[RunResult, Path]:
    """Searches the model that meets a goal: the smallest where a loss is limited, else the most accurate.

    Args:
        config: All settings; the goal is in `config.goal`.
        out: The run directory; None: runs/goal-MODEL-TASK-GOAL.
        fresh: Start over, rather than resume what is in the directory.
        command: The command line, for run.json; None where Python code calls.

    Returns:
        The result, as in run.json, and the run directory. `result.goal` says what was found, or that nothing was.

    Raises:
        UsageError: The settings are wrong.
        MeasurementError: The dense model has nothing to lose where a loss is limited, or a candidate failed.
    """
    if config.structure == "joint":
        return run_joint(config, out, fresh, command)
    return start(config, out, fresh, command, resolve_goal, run_all)


def run_all(run: RunContext) -> RunResult:
    """Every stage in its order."""
    check_context(run.model, run.workload)
    stages.score(run)
    search = Search(run, search_space(run.spec))
    try:
        search.evaluate(run.base)
        search.check_able()
        chosen = search.smallest() if search.goal.limits_loss else search.most_accurate()
    finally:
        search.live.release()
    stages.delete_second_moments(run)
    chosen = search.with_speed(chosen)
    search.time(search.states[chosen.variant])
    result = _collected(search, chosen)
    publish(result, run.path)
    return result


def _collected(search: Search, chosen: Candidate) -> RunResult:
    """The result, with the checkpoint of a model that meets the goal. The chosen variant comes first."""
    run, space = search.run, search.space
    names = [chosen.variant, *(name for name in search.candidates if name != chosen.variant)]
    states = [search.states[name] for name in names]
    if chosen.met:
        states[0] = stages.export(run, states[0])
    spec = replace(run.spec, arms=tuple(search.arms[name] for name in names))
    outcome = GoalOutcome(
        goal=search.goal,
        widths=(space.widths[0], space.widths[-1], len(space.widths)),
        looks=space.looks,
        level=space.level,
        candidates=tuple(search.candidates.values()),
        found=chosen.variant if chosen.met else None,
        nearest=None if chosen.met else chosen.variant,
        floors=search.floors,
    )
    return replace(collect(run.directory, spec, [run.base, *states], run.chat), goal=outcome)


class Search:
    """The candidates that were evaluated so far, in this order."""

    def __init__(self, run: RunContext, space: SearchSpace) -> None:
        assert run.spec.goal is not None, "a search needs a goal"
        self.run, self.space, self.goal, self.live = run, space, run.spec.goal, LiveCells(run)
        self.candidates: dict[str, Candidate] = {}
        self.states: dict[str, VariantState] = {}
        self.arms: dict[str, Arm] = {}
        self.floors: dict[str, float] = {}
        self.longer: set[str] = set()  # variants that are timed by more passes

    def smallest(self) -> Candidate:
        """The narrowest candidate that keeps the limits of loss; where none does, the nearest."""
        ways, count = self.space.ways, len(self.space.widths)
        place = narrowest(len(ways), count, lambda way, index: self.look(ways[way], index).met)
        return self.look(ways[place[0]], place[1]) if place else nearest(list(self.candidates.values()))

    def most_accurate(self) -> Candidate:
        """At the largest width that is fast enough, the way with the best value on the target; where none is fast
        enough, at the smallest.
        """
        ways, last = self.space.ways, len(self.space.widths) - 1
        steps = first_true(last + 1, lambda step: self.is_fast(last - step)) if self.goal.is_timed else 0
        found = [self.look(way, 0 if steps is None else last - steps) for way in ways]
        return max(found, key=lambda candidate: self.worth(candidate.variant))

    def look(self, way: str | None, index: int) -> Candidate:
        """Evaluates a way of pruning at a width, and says which conditions it keeps."""
        width, (arm, state) = self.space.widths[index], self.planned(way, index)
        if arm.name not in self.candidates:
            self.evaluate(state)
            losses = loss_conditions(self.goal, self.run.spec.target.name, self.answers(arm.name), self.space.level)
            sizes = layer_conditions(self.goal, self.run.spec.shape, state.checkpoint.widths)
            conditions = (*losses, *sizes, *self.right(arm.name))
            ratio = 1 - width / self.run.spec.shape.intermediate_size
            self.candidates[arm.name] = Candidate(arm.name, arm.kind, width, ratio, conditions)
            kept = "; ".join(condition_text(vars(c)) + ("" if c.met else ", missed") for c in conditions)
            say(f"{arm.name}, FFN width {width}: {kept or 'evaluated'}")
        return self.candidates[arm.name]

    def right(self, name: str) -> tuple[Condition, ...]:
        """That the variant has an answer of the target right, where its loss is not limited anyway."""
        if self.goal.max_loss is not None:
            return ()
        target = self.run.spec.target.name
        return right_conditions(target, read_eval(eval_file(self.run.path, name))[target])

    def planned(self, way: str | None, index: int) -> tuple[Arm, VariantState]:
        """The arm of a way at a width, and its plan."""
        arm = arm_at(self.run.config, way, self.space.widths[index], self.run.spec.shape)
        if arm.name not in self.states:
            if arm.request.compensated and device_name() == "cuda":
                self.live.release()  # re-fitting needs the GPU that the engine has filled
            self.arms[arm.name], self.states[arm.name] = arm, stages.plan(self.run, arm)
        return arm, self.states[arm.name]

    def evaluate(self, state: VariantState) -> None:
        key = cell_key(self.run, state.identity)
        self.live.evaluate(Cell(state.name, state.plan and state.plan.absolute(), key))

    def check_able(self) -> None:
        """Notes the off-target tasks that the dense model cannot do.

        Raises:
            MeasurementError: A limit of loss means nothing on what the dense model answers.
        """
        for task in limited_tasks(self.run.spec):
            outcomes = list(self.correct(DENSE, task.name).values())
            right, share = sum(outcomes), sum(outcomes) / len(outcomes)
            limit = self.goal.max_loss if task is self.run.spec.target else self.goal.off_target_loss
            if not is_able(right, len(outcomes)) and task is not self.run.spec.target:
                self.floors[task.name] = share
            elif not is_able(right, len(outcomes)) or (limit or 0.0) >= share:
                raise MeasurementError(
                    f"the dense model has {right} of {len(outcomes)} right on {task.name}, too few for a limit of "
                    f"{100 * (limit or 0.0):g} points to say anything; choose another task or a smaller loss"
                )
        if self.goal.limits_loss and not self.limited:
            raise MeasurementError("the dense model can do no off-target task; choose others with --task")

    @property
    def limited(self) -> list[str]:
        """The tasks whose loss counts."""
        return [task.name for task in limited_tasks(self.run.spec) if task.name not in self.floors]

    def answers(self, name: str) -> dict[str, tuple[list[bool], list[bool]]]:
        """Task -> right or wrong, of the dense model and of a variant on the same items."""
        found = {}
        for task in self.limited:
            before, after = (self.correct(variant, task) for variant in (DENSE, name))
            items = sorted(before.keys() & after.keys())
            found[task] = [before[i] for i in items], [after[i] for i in items]
        return found

    def correct(self, variant: str, task: str) -> dict[int, bool]:
        return read_correct(samples_folder(self.run.path, variant) / f"{task}.jsonl")

    def worth(self, variant: str) -> float:
        """The value on the target, higher is better."""
        target = self.run.spec.target
        value = read_eval(eval_file(self.run.path, variant))[target.name].value
        return -value if target.metric in LIKELIHOOD_METRICS else value

    def is_fast(self, index: int) -> bool:
        """Whether a width is fast enough, measured on the first way of pruning, as all have the same sizes there."""
        return self.speed(self.planned(self.space.ways[0], index)[1]).met

    def speed(self, state: VariantState) -> Condition:
        """The measured speed-up of a variant, by more passes where its interval has the goal inside."""
        self.live.release()
        limit, ratios = self.goal.speedup or 1.0, self.time(state)
        if is_open(limit, ratios) and state.name not in self.longer:
            say(f"{state.name}: {limit:g} lies within the interval; timed by more passes")
            self.longer.add(state.name)
            ratios = self.time(state)
        return speed_condition(limit, ratios)

    def time(self, state: VariantState) -> list[SpeedRatio]:
        """Times a variant beside the dense model unless that is done; serving.json has this one and no other."""
        measure_speed(self.run, [state], lambda _: nullcontext(), self.longer)
        ratios = read_serving(serving_file(self.run.path))[1]
        return [r for r in ratios if r.variant == state.name and r.quantity == "output_tok_s"]

    def with_speed(self, chosen: Candidate) -> Candidate:
        """The candidate with its own measured speed-up, where the goal asks for one."""
        if self.goal.is_timed:
            speed = self.speed(self.states[chosen.variant])
            chosen = replace(chosen, conditions=(*chosen.conditions, speed))
            self.candidates[chosen.variant] = chosen
        return chosen

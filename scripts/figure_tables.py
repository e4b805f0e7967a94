"""The tables of figures on the pages, from committed JSON files; scripts/write_figures.py puts them there."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

from harness.core.statistics import ABLE
from reports.figures import points
from reports.sections.claims import claims_table
from reports.sections.dissociation import explanation_table, matrix_table
from scripts import make_figures

Documents = Mapping[str, Any]
EXAMPLES = {
    "laptop": "tiny-math",
    "smollm2_math": "SmolLM2-135M, word problems",
    "sweep_smollm2_skills": "SmolLM2-135M, three skills",
}
ARMS = {shown: arm for arm, (shown, _) in make_figures.ARMS.items()}
RATIOS = (0.1, 0.3, 0.5)
SHARES = (0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7)
SEEDS = (7, 33, 42)


def pick(rows: Sequence[Mapping[str, Any]], **wanted: Any) -> Mapping[str, Any]:
    """The one row with these values. Raises ValueError where there is none, or more than one."""
    found = [row for row in rows if all(row[name] == value for name, value in wanted.items())]
    if len(found) != 1:
        raise ValueError(f"{len(found)} rows have {wanted}")
    return found[0]


def masks(run: Mapping[str, Any]) -> int:
    """How many random masks a sweep's accuracy on its target is the mean of."""
    point = pick(run["sweep"]["points"], arm="random", ratio_requested=0.1, task=run["task"])
    return len(point["masks"] or point["variants"])


def speeds(run: Mapping[str, Any], *variants: str) -> list[Mapping[str, Any]]:
    """The ratios to dense of these variants' output tokens per second, one for each concurrency."""
    return [r for r in run["speed_ratios"] if r["quantity"] == "output_tok_s" and r["variant"] in variants]


def of_ideal(ratio: Mapping[str, Any]) -> float:
    return float(ratio["ratio"] / max(ratio["ideal_flops"], ratio["ideal_bytes"]))


def of_gain(ratio: Mapping[str, Any]) -> float:
    return float((ratio["ratio"] - 1) / (max(ratio["ideal_flops"], ratio["ideal_bytes"]) - 1))


def table(head: Sequence[str], rows: Iterator[Sequence[str]]) -> str:
    lines = [head, ["---"] * len(head), *rows]
    return "".join(f"| {' | '.join(line)} |\n" for line in lines).replace("| --- ", "|---").replace("|--- |", "|---|")


def results(documents: Documents) -> str:
    """Accuracy of four arms of the examples, for the README."""
    head = ("model", "removed", "best", "change", "S", "random", "reverse", "off target, `best`")
    return table(head, (row for example in EXAMPLES for row in _results_of(documents[example], EXAMPLES[example])))


def _results_of(run: Mapping[str, Any], model: str) -> Iterator[tuple[str, ...]]:
    found = {(p["arm"], p["ratio_requested"], p["task"]): p for p in run["sweep"]["points"]}
    target, dense = run["task"], run["variants"][0]["eval"]
    name = f"**{model}**, dense {100 * dense[target]['value']:.1f}, n = {dense[target]['n']}"
    able = [task for task, e in dense.items() if task != target and e["ci_low"] >= ABLE]
    asked = {ratio for _, ratio, _ in found}
    for ratio in sorted(asked.intersection(RATIOS)):
        value = {shown: f"{100 * found[arm, ratio, target]['value']:.1f}" for shown, arm in ARMS.items()}
        best = found[ARMS["best"], ratio, target]
        change = f"{points(best['difference'])} ({points(best['difference_low'])} to {points(best['difference_high'])})"
        others = [f"{task} {points(found[ARMS['best'], ratio, task]['difference'])}" for task in able]
        elsewhere = ", ".join(others) or "cannot say"
        yield name, f"{100 * ratio:.0f} %", value["best"], change, *[value[x] for x in list(ARMS)[1:]], elsewhere
        name = ""


def claims(documents: Documents) -> str:
    """Every claim with its verdict on the examples."""
    judged = [claims_table(documents[example]).rows for example in EXAMPLES]
    details = [[claim["details"] for claim in documents[example]["claims"]] for example in EXAMPLES]
    cells = [
        [_verdict(row, why) for row, why in zip(rows, whys, strict=True)]
        for rows, whys in zip(judged, details, strict=True)
    ]
    names = (row[0] for row in judged[0])
    return table(("the paper's claim, with its score S", *EXAMPLES.values()), zip(names, *cells, strict=True))


def _verdict(row: Sequence[str], details: Sequence[str]) -> str:
    _, verdict, figure, quantity, *_ = row
    reason = next(iter(details), "").removeprefix("cannot say: ")
    return f"{verdict} ({quantity} {figure})" if figure else f"{verdict} ({reason})"


_METRIC_ARMS = {  # arm of docs/metrics.json -> name in the table
    "obs+refit": "`best`",
    "wifv+refit": "`wifv`, re-fitted",
    "rms+refit": "`rms`, re-fitted",
    "rms": "`rms`",
    "obs": "`obs`, not re-fitted",
    "smd+refit": "`S`, re-fitted",
    "wifv": "`wifv`",
    "contrib": "`contrib`",
    "ratio-std": "`ratio-std`",
    "ratio-rms": "`ratio-rms`",
    "random-7+refit": "random (one seed), re-fitted",
    "ratio-abs": "`ratio-abs`",
    "weight": "`weight`",
    "contrast": "`contrast`",
    "dprime": "`dprime`",
    "smd": "`S` (the paper's)",
    "auroc": "`auroc`",
    "ratio-freq": "`ratio-freq`",
    "taylor": "`taylor`",
    "lape": "`lape`",
}


def metrics(documents: Documents) -> str:
    """mini_math / mini_facts of every metric at every ratio, and of random pruning over its seeds."""
    rows = documents["metrics"]["rows"]
    head = ("arm", "10 % removed", *(f"{100 * ratio:.0f} %" for ratio in SHARES[1:]))

    def cells(arm: str) -> Iterator[str]:
        for ratio in SHARES:
            row = pick(rows, arm=arm, ratio=ratio)
            yield f"{100 * row['mini_math'][0]:.1f} / {100 * row['mini_facts'][0]:.0f}"

    body = [(name, *cells(arm)) for arm, name in _METRIC_ARMS.items()]
    over_seeds = [_over_seeds(rows, ratio) for ratio in SHARES]
    return table(head, iter([*body, ("random, mean of 3 seeds (standard deviation)", *over_seeds)]))


def _over_seeds(rows: Sequence[Mapping[str, Any]], ratio: float) -> str:
    import numpy as np

    found = [pick(rows, arm=f"random-{seed}", ratio=ratio) for seed in SEEDS]
    math, facts = ([100 * row[task][0] for row in found] for task in ("mini_math", "mini_facts"))
    return f"{np.mean(math):.1f} ({np.std(math, ddof=1):.1f}) / {np.mean(facts):.0f}"


_PERPLEXITY_ARMS = {  # arm of docs/perplexity.json -> name in the table
    "obs+refit": "`best`",
    "obs+rec": "`best --reconstruct`",
    "obs+refit@0.5": "`best --general-weight 0.5`",
    "rms+refit": "`rms --compensate`",
    "rms": "`rms`",
    "optipfair": "optipfair 0.4.2, data-driven MAW, same texts",
    "random-7": "random (one seed)",
    "smd": "`S` (the paper's)",
}


def perplexity(documents: Documents) -> str:
    """Perplexity of GSM8K's answers (with its factor) / bits per byte of WikiText-2, and the seconds to prune."""
    rows = documents["perplexity"]["rows"]
    dense = pick(rows, arm="dense")

    def cell(arm: str, ratio: float) -> str:
        row = next((row for row in rows if (row["arm"], row["ratio"]) == (arm, ratio)), None)
        if row is None:
            return "not measured"
        value, bits = row["gsm8k_answers"][0], row["wikitext"][0]
        return f"{_three(value)} ({_two(value / dense['gsm8k_answers'][0])}) / {bits:.3f}"

    def seconds(arm: str) -> str:
        found = sorted(row["seconds"] for row in rows if row["arm"] == arm and "seconds" in row)
        if not found:
            return "not measured"
        low, high = (f"{value:.0f}" for value in (found[0], found[-1]))
        return low if low == high else f"{low} to {high}"

    head = ("arm", "20 % removed", "30 %", "50 %", "seconds from model to checkpoint")
    first = ("dense", f"{dense['gsm8k_answers'][0]:.2f} / {dense['wikitext'][0]:.3f}", "", "", "")
    arms = [(arm, name) for arm, name in _PERPLEXITY_ARMS.items() if any(row["arm"] == arm for row in rows)]
    body = [(name, *(cell(arm, r) for r in (0.2, 0.3, 0.5)), seconds(arm)) for arm, name in arms]
    return table(head, iter([first, *body]))


def _three(value: float) -> str:
    """Three digits at least: 3.78, 11.7, 105."""
    return f"{value:.{2 if value < 10 else 1 if value < 100 else 0}f}"


def _two(factor: float) -> str:
    return f"{factor:.{2 if factor < 5 else 1 if factor < 10 else 0}f}"


def recovery(documents: Documents) -> str:
    """What fine-tuning recovered: arms by ratio, with the other tasks before and after."""
    rows = documents["recovery"]["rows"]
    head = ("removed", "arm", "mini_math", "gap recovered", "margin over half", "against dense, fine-tuned")
    order = [(0.3, arm) for arm in ("selective", "random", "reverse", "dense")]
    order += [(0.5, arm) for arm in ("selective", "random", "reverse")]
    return table((*head, "mini_facts", "mini_code"), (_recovered(rows, *place) for place in order))


def _recovered(rows: Sequence[Mapping[str, Any]], ratio: float, arm: str) -> tuple[str, ...]:
    math, *others = (pick(rows, ratio=ratio, arm=arm, task=task) for task in ("mini_math", "mini_facts", "mini_code"))
    changes = [f"{row['before']:.1f} -> {row['after']:.1f}" for row in (math, *others)]
    if arm == "dense":
        return "0", arm, changes[0], "", "", "", *changes[1:]
    half, against = (
        f"{value:+.1f} [{low:.1f}, {high:.1f}]"
        for value, low, high in (math["margin_over_half"], math["against_control"])
    )
    return f"{ratio:g}", arm, changes[0], f"{100 * math['share']:.0f} %", half, against, *changes[1:]


def effects(documents: Documents) -> str:
    """The paper's effects on the embedded model, for its card."""
    arms, tasks = documents["effects"]["arms"], ("mini_math", "mini_facts", "mini_code")

    def row(name: str, *found: str) -> tuple[str, ...]:
        return name, *(" / ".join(f"{100 * arms[arm][task]:.1f}" for arm in found) for task in tasks)

    seeds = ("random, seeds 7 / 33 / 42", *(f"random-{seed}" for seed in SEEDS))
    rows = [row("dense", "dense"), row("selective", "selective"), row(*seeds), row("reverse", "reverse")]
    return table(("arm", *tasks), iter(rows))


def serving(documents: Documents) -> str:
    """Speeds of both serving examples at each concurrency, as ratios to dense and as shares of the ideal."""
    head = ("", "output tok/s at 1, 8, 32 (128) at a time", "against itself", "width 0.8", "width 0.5")
    runs = {"SmolLM2-135M": documents["serving_smollm2_135m"], "tiny-math": documents["serving_tiny_math"]}
    return table(head, ((name, *_served(run)) for name, run in runs.items()))


def _served(run: Mapping[str, Any]) -> Iterator[str]:
    dense = run["variants"][0]
    yield _at_a_time([f"{row['output_tok_s']:.0f}" for row in dense["serving"]["concurrency"]])
    again = speeds(run, f"{dense['name']}-2")
    width = max((r["ci_high"] - r["ci_low"]) / 2 for r in again)
    yield f"{_at_a_time([format(r['ratio'], '.2f') for r in again])}, half-widths up to {100 * width:.1f} %"
    for name in ("removed-0.2", "removed-0.5"):
        found = speeds(run, name)
        shares = sorted(100 * of_ideal(r) for r in found)
        reached = f"{shares[0]:.0f} to {shares[-1]:.0f} % of the ideal"
        yield f"{_at_a_time([format(r['ratio'], '.2f') + 'x' for r in found])}: {reached}"


def _at_a_time(values: Sequence[str]) -> str:
    """Of 1, 8 and 32 requests, and in brackets of 128 where they were measured."""
    return ", ".join(values[:3]) + "".join(f" ({value})" for value in values[3:])


_PRELOADS = {  # head of the column -> engine in docs/cpu_preload.json, what it is compared with
    "bfloat16 / float32": ("bfloat16 plain", "over plain float32"),
    "with Intel's OpenMP, bfloat16": ("bfloat16 iomp", "over plain"),
    "and tcmalloc, bfloat16": ("bfloat16 iomp+tcmalloc", "over plain"),
    "both, float32": ("float32 iomp+tcmalloc", "over plain"),
}


def cpu_preload(documents: Documents) -> str:
    """What bfloat16 and preloaded libraries do to the speed of a CPU engine."""

    def cells(concurrency: int) -> Iterator[str]:
        yield str(concurrency)
        for engine, against in _PRELOADS.values():
            row = pick(documents["cpu_preload"]["rows"], engine=engine, concurrency=concurrency)
            value, low, high = row[against]
            yield f"{value:.2f} ({low:.2f} to {high:.2f})"

    return table(("at a time", *_PRELOADS), (tuple(cells(concurrency)) for concurrency in (1, 8, 32)))


def transfer(documents: Documents) -> str:
    """Accuracy of every task without every task's neurons, of the models that `harness dissociate` was run on."""
    found = [run["dissociation"] for run in _dissociations(documents).values()]
    head = ("model", *matrix_table(found[0]).head)
    models = zip(_dissociations(documents), found, strict=True)
    return table(head, ((model, *row) for model, one in models for row in matrix_table(one).rows))


def explained(documents: Documents) -> str:
    """The verdict and the share of every explanation, for each task and model."""
    rows = [
        (model, *row[:4])
        for model, run in _dissociations(documents).items()
        for row in explanation_table(run["dissociation"]).rows
    ]
    return table(("model", "task", "explanation", "verdict", "share of the loss"), iter(rows))


def _dissociations(documents: Documents) -> dict[str, Mapping[str, Any]]:
    return {run["model"]: run for name, run in documents.items() if name.startswith("dissociate_")}


TABLES: Mapping[str, Callable[[Documents], str]] = {
    made.__name__: made
    for made in (results, claims, metrics, perplexity, recovery, effects, serving, cpu_preload, transfer, explained)
}

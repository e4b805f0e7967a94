"""Speed and memory of the variants: measured, beside what the formulas predict."""

from __future__ import annotations

import statistics
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from harness.core.dtypes import BY_NAME
from harness.core.types.evaluation import has_right_answers
from reports.figures import mebibytes, percent
from reports.parts import Table

_UNKNOWN = "not measured"
_NO_GAIN = 0.02  # an ideal speed-up below 1.02 counts as none
_NOISY = 0.1  # (largest - smallest repeat) / median, of five repeats
_FIVE = 2.326  # the expected range of five normal values in standard deviations (d2 of control charts)
_QUANTITIES = {
    "output_tok_s": "output tokens per second",
    "output_tok_cpu_s": "output tokens per CPU second",
    "answers_s": "answers per second",
}


def serving_tables(run: Mapping[str, Any]) -> list[Table]:
    made = [make(run) for make in (throughput_table, latency_table, speed_table, memory_table, capacity_table)]
    return [table for table in made if table.rows]


def serving_sentences(run: Mapping[str, Any]) -> list[str]:
    """Every variant's speed, with intervals where there is more than one pair."""
    found: dict[tuple[str, str], list[str]] = {}
    for r in run.get("speed_ratios", ()):
        if r["quantity"] == "output_tok_s":
            known = f" ({r['ci_low']:.2f} to {r['ci_high']:.2f})" if r["pairs"] > 1 else ""
            found.setdefault((r["variant"], r["baseline"]), []).append(
                f"{r['ratio']:.2f}x{known} at {r['concurrency']}"
            )
    return [
        f"Output tokens per second of {v} against {b}: {', '.join(parts)} concurrent requests."
        for (v, b), parts in found.items()
    ]


def speeds_of(run: Mapping[str, Any], v: Mapping[str, Any]) -> list[Mapping[str, Any]]:
    """Ratios of output tokens per second to the first variant, by concurrency: of this variant, or of another of the
    same widths, on which alone speed depends.
    """
    same = [x["name"] for x in run["variants"] if x["intermediate_sizes"] == v["intermediate_sizes"]]
    known = [
        r
        for r in run.get("speed_ratios", ())
        if r["quantity"] == "output_tok_s" and r["baseline"] == run["variants"][0]["name"]
    ]
    timed = next((name for name in (v["name"], *same) if any(r["variant"] == name for r in known)), None)
    return sorted((r for r in known if r["variant"] == timed), key=lambda r: int(r["concurrency"]))


def ratio_text(ratio: Mapping[str, Any]) -> str:
    """1.13x (0.99 to 1.30): a ratio of speeds with its interval, the same everywhere."""
    known = "" if ratio["ci_low"] is None else f" ({ratio['ci_low']:.2f} to {ratio['ci_high']:.2f})"
    return f"{ratio['ratio']:.2f}x{known}"


def own_noise(run: Mapping[str, Any], ratio: Mapping[str, Any]) -> tuple[float, float] | None:
    """The interval of the first model against itself at the same concurrency, with 1 in it: of a model of the same
    shape, which has no ideal gain. None where that was not timed, or has no interval.
    """
    place = ("baseline", "concurrency", "quantity")
    ends = [
        end
        for r in run["speed_ratios"]
        if all(r[name] == ratio[name] for name in place) and r["ideal_flops"] == r["ideal_bytes"] == 1
        for end in (r["ci_low"], r["ci_high"])
        if end is not None
    ]
    return (min(1.0, *ends), max(1.0, *ends)) if ends else None


def is_shown(run: Mapping[str, Any], ratio: Mapping[str, Any]) -> bool:
    """Whether a ratio of speeds is known to differ from 1 by more than the first model does from itself."""
    noise = own_noise(run, ratio)
    if noise is None or ratio["ci_low"] is None:
        return False
    return bool(ratio["ci_low"] > noise[1] or ratio["ci_high"] < noise[0])


def is_beyond_one(ratio: Mapping[str, Any]) -> bool:
    """Whether the interval of a ratio of speeds leaves 1 out."""
    return ratio["ci_low"] is not None and not ratio["ci_low"] <= 1 <= ratio["ci_high"]


def doubt(run: Mapping[str, Any], ratio: Mapping[str, Any]) -> str:
    """Why a ratio of speeds is no evidence of a difference, in two words at most; empty where it is."""
    if is_noisy(run, ratio):
        return "noisy"
    if is_shown(run, ratio):
        return ""
    return "not compared" if is_beyond_one(ratio) and own_noise(run, ratio) is None else "not shown"


def per_right_answer(run: Mapping[str, Any], v: Mapping[str, Any]) -> tuple[float, float | None] | None:
    """Tokens for each right answer on the target, and seconds at the highest concurrency that was timed.

    None where no answers are right or wrong, none is right, or tokens are unknown. No seconds where the timing is
    noisy, or shows no difference from dense.
    """
    found, first = v["eval"][run["task"]], run["variants"][0]
    if not has_right_answers(found["metric"]) or not found["tokens_per_answer"] or not 0 < found["value"] <= 1:
        return None
    tokens = found["tokens_per_answer"] / found["value"]
    ratios = {r["concurrency"]: r["ratio"] for r in speeds_of(run, v) if not doubt(run, r)}
    rows = first["serving"]["concurrency"] if first["serving"] else []
    row = max(rows, key=lambda row: int(row["concurrency"]), default=None)
    if row is None or _is_spread(row):
        return tokens, None
    ratio = 1.0 if v is first else ratios.get(row["concurrency"])
    return tokens, tokens / (row["output_tok_s"] * ratio) if ratio else None


def tokens_gained(run: Mapping[str, Any], v: Mapping[str, Any]) -> int | None:
    """Tokens whose keys and values fit into the memory of the removed weights; None where KV cache was not measured."""
    found = v["serving"] or run["variants"][0]["serving"]
    if not found:
        return None
    freed = (run["variants"][0]["parameters"] - v["parameters"]) * BY_NAME[found["dtype"]].item_bytes
    return int(freed // found["kv_bytes_per_token"])


def served(run: Mapping[str, Any]) -> list[tuple[str, Mapping[str, Any]]]:
    return [(v["name"], v["serving"]) for v in run["variants"] if v["serving"]]


def _rows(run: Mapping[str, Any]) -> Iterator[tuple[str, Mapping[str, Any]]]:
    return ((name, row) for name, found in served(run) for row in found["concurrency"])


def throughput_table(run: Mapping[str, Any]) -> Table:
    head = (
        "variant",
        "concurrency",
        "output tok/s",
        "range",
        "all tok/s",
        "output tok per CPU s",
        "tokens per answer",
    )
    rows = [
        (
            name,
            str(r["concurrency"]),
            f"{r['output_tok_s']:.0f}",
            f"{min(r['output_tok_s_repeats']):.0f} to {max(r['output_tok_s_repeats']):.0f}",
            _number(r.get("total_tok_s")),
            _number(r.get("output_tok_cpu_s")),
            _number(r.get("tokens_per_answer"), 1),
        )
        for name, r in _rows(run)
    ]
    return Table("Throughput", head, tuple(rows), " ".join([*_how(run), *_noise(run), *_waiting(run)]))


def _number(value: float | None, digits: int = 0) -> str:
    return _UNKNOWN if value is None else f"{value:.{digits}f}"


def _how(run: Mapping[str, Any]) -> list[str]:
    """How it was measured."""
    found = served(run)[0][1] if served(run) else {}
    if not found.get("prompts"):
        return []
    ways = {"offline": "the engine in one process", "online": "vLLM's server over HTTP, measured by vllm bench serve"}
    lengths = f"answers {'of at most' if found['stop_at_eos'] else 'of exactly'} {found['output_tokens']} tokens"
    said = (
        f"Measured on {found['device']} in {found['dtype']}: {ways[found['mode']]}; "
        f"prompts: {found['prompts']}; {lengths}."
    )
    gpu = [] if found["device"] == "cuda" else ["Not measured on a GPU."]
    return [said, "Medians of the repeats; variants are interleaved. all tok/s includes prompt tokens.", *gpu]


def is_noisy(run: Mapping[str, Any], ratio: Mapping[str, Any]) -> bool:
    """Whether the repeats behind a ratio of speeds differ by so much that its interval says little: its own, or
    those of its variants in older files.
    """
    own = [ratio.get("baseline_passes") or (), ratio.get("variant_passes") or ()]
    if all(own) and ratio["quantity"] == "output_tok_s":
        return any(_range_of_five(passes) > _NOISY for passes in own)
    pair = (ratio["variant"], ratio["baseline"])
    return any(name in pair and r["concurrency"] == ratio["concurrency"] for name, r in _noisy_rows(run))


def _noisy_rows(run: Mapping[str, Any]) -> list[tuple[str, Mapping[str, Any]]]:
    return [(name, r) for name, r in _rows(run) if _is_spread(r)]


def _is_spread(row: Mapping[str, Any]) -> bool:
    return _spread_of(row) > _NOISY


def _spread_of(row: Mapping[str, Any]) -> float:
    repeats = row.get("output_tok_s_repeats") or ()
    return _range_of_five(repeats) if len(repeats) > 5 else row.get("spread") or 0.0


def _range_of_five(repeats: Sequence[float]) -> float:
    """The range of repeats by their median; of more than five what five would have, as a range grows with their
    number.
    """
    wide = _FIVE * statistics.stdev(repeats) if len(repeats) > 5 else max(repeats) - min(repeats)
    return wide / statistics.median(repeats)


def _noise(run: Mapping[str, Any]) -> list[str]:
    noisy = [f"{name} at {r['concurrency']} ({percent(_spread_of(r), 0)})" for name, r in _noisy_rows(run)]
    if not noisy:
        return []
    return [
        (
            f"The machine was noisy: repeats differ by more than {percent(_NOISY, 0)} for "
            f"{', '.join(noisy)}; measure again on an idle machine."
        )
    ]


def _waiting(run: Mapping[str, Any]) -> list[str]:
    """Says where the KV cache cannot hold all concurrent requests, so that some wait."""
    found = [
        (name, s["kv_capacity_tokens"] // s["context_tokens"], s) for name, s in served(run) if s.get("context_tokens")
    ]
    short = [f"{name} {fit}" for name, fit, s in found if any(row["concurrency"] > fit for row in s["concurrency"])]
    return (
        [f"The KV cache holds fewer full-length requests than the concurrency, so some may wait: {', '.join(short)}."]
        if short
        else []
    )


def latency_table(run: Mapping[str, Any]) -> Table:
    names = ("ttft_ms", "tpot_ms", "itl_ms")
    rows = [
        (name, str(r["concurrency"]), *(_percentiles(r.get(latency) or {}) for latency in names))
        for name, r in _rows(run)
    ]
    note = (
        "p50 / p90 / p99 in milliseconds over all requests. TTFT: time to first token, waiting included. "
        "TPOT: mean time per output token after the first. ITL: time between two tokens."
    )
    return Table("Latency", ("variant", "concurrency", "TTFT ms", "TPOT ms", "ITL ms"), tuple(rows), note)


def _percentiles(found: Mapping[str, float | None]) -> str:
    return " / ".join(_number(found.get(name), 2) for name in ("p50", "p90", "p99")) if found else _UNKNOWN


def speed_table(run: Mapping[str, Any]) -> Table:
    head = (
        "variant",
        "against",
        "concurrency",
        "of",
        "ratio",
        "95 % interval",
        "ideal by FLOPs / bytes",
        "of the ideal",
        "of its gain",
    )
    rows = [
        (
            r["variant"],
            r["baseline"],
            str(r["concurrency"]),
            _QUANTITIES[r["quantity"]],
            f"{r['ratio']:.3f}",
            ratio_interval(r),
            f"{r['ideal_flops']:.2f} / {r['ideal_bytes']:.2f}",
            *_shares(run, r, max(r["ideal_flops"], r["ideal_bytes"])),
        )
        for r in run.get("speed_ratios", ())
    ]
    note = (
        "Ratios are geometric means over pairs of consecutive repeats. The ideal is "
        "the prediction: FLOPs, or bytes read, "
        "of all requests from prompt to last token, first variant over this one; "
        "the larger counts. What the engine does "
        "besides matrix products is not included. of the ideal: ratio / ideal; of its gain: (ratio - 1) / (ideal - 1), "
        "where the interval clears that of dense against itself, and empty where this was not timed. dense-again: the "
        "dense model against itself, what a ratio shows by chance."
    )
    return Table("Speed against the first variant, predicted and measured", head, tuple(rows), note)


def _shares(run: Mapping[str, Any], r: Mapping[str, Any], ideal: float) -> tuple[str, str]:
    """Of the ideal, and of its gain; empty where no gain was possible. A gain that is not shown has no share."""
    if ideal <= 1 + _NO_GAIN:
        return "", ""
    return percent(r["ratio"] / ideal, 0), percent((r["ratio"] - 1) / (ideal - 1), 0) if is_shown(run, r) else ""


def ratio_interval(ratio: Mapping[str, Any]) -> str:
    return "unknown, one pair" if ratio["pairs"] == 1 else f"{ratio['ci_low']:.3f} to {ratio['ci_high']:.3f}"


def memory_table(run: Mapping[str, Any]) -> Table:
    head = ("variant", "weights", "predicted", "in the engine", "engine's memory", "peak")
    rows = [
        (
            name,
            mebibytes(s["weight_bytes"]),
            _size(s.get("forecast", {}).get("weight_bytes")),
            _size(s.get("engine_weight_bytes")),
            _size(s.get("resident_bytes")),
            _size(s.get("peak_bytes")),
        )
        for name, s in served(run)
    ]
    note = (
        "weights: size of the files, beside parameters times bytes. In the engine: as vLLM "
        "reports them, on CUDA only. Engine's memory: device "
        "memory on CUDA; on a CPU, main memory of a process with one engine, libraries included."
    )
    return Table("Memory", head, tuple(rows), note)


def _size(value: int | None) -> str:
    return _UNKNOWN if value is None else mebibytes(value)


def capacity_table(run: Mapping[str, Any]) -> Table:
    """The tokens gained by freed weights are the same on every device: they depend on the model alone."""
    head = (
        "variant",
        "KV bytes per token",
        "by formula",
        "KV blocks",
        "capacity in tokens",
        "forecast",
        "tokens gained",
    )
    rows = []
    for v in run["variants"]:
        if s := v["serving"]:
            forecast = s.get("forecast", {})
            measured = (
                f"{s['kv_bytes_per_token']:,}",
                _count(forecast.get("kv_bytes_per_token")),
                _count(s.get("kv_blocks")),
            )
            capacity = (f"{s['kv_capacity_tokens']:,}", _count(forecast.get("kv_capacity_tokens")))
            rows.append((v["name"], *measured, *capacity, f"{tokens_gained(run, v):,}"))
    note = (
        "KV bytes per token do not change with FFN pruning. All variants were given the "
        "same cache size here; an engine that takes "
        "the whole device can hold this many more tokens in place of the removed weights, if weights and cache have "
        "the same dtype (`harness plan MODEL --device`)."
    )
    return Table("KV cache", head, tuple(rows), note)


def _count(value: int | None) -> str:
    return _UNKNOWN if value is None else f"{value:,}"

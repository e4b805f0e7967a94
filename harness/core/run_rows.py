"""Every figure of a run as one row, for spreadsheets and data frames."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from typing import Any

HEAD = ("variant", "method", "metric", "ratio_neurons", "task", "quantity", "value", "ci_low", "ci_high", "n")


def rows(run: Mapping[str, Any]) -> Iterator[tuple[Any, ...]]:
    """Rows under `HEAD`; the first column is the variant, arm or claim."""
    of = {v["name"]: (v["name"], v["method"], v["metric"], v["ratio_neurons"]) for v in run["variants"]}
    for v in run["variants"]:
        yield from ((*of[v["name"]], *row) for row in _of_variant(v))
    for c in run["comparisons"]:
        what = f"difference from {c['baseline']}"
        yield (
            *of.get(c["variant"], _unknown(c["variant"])),
            c["task"],
            what,
            c["difference"],
            c["ci_low"],
            c["ci_high"],
            c["n"],
        )
    for r in run.get("speed_ratios", ()):
        what = f"{r['quantity']} over {r['baseline']} at {r['concurrency']}"
        yield (
            *of.get(r["variant"], _unknown(r["variant"])),
            None,
            what,
            r["ratio"],
            r["ci_low"],
            r["ci_high"],
            r["pairs"],
        )
    for r in run.get("recoveries", ()):
        named = (*of.get(r["variant"], _unknown(r["variant"])), r["task"])
        over = f", mean over {r['seeds']} seeds" if r.get("seeds", 1) > 1 else ""
        yield (*named, f"gap recovered{over}", r["share"], None, None, r["n"])
        yield (*named, f"margin over half{over}", r["margin_over_half"], r["ci_low"], r["ci_high"], r["n"])
    yield from _of_sweep(run)
    yield from _of_dissociation(run.get("dissociation") or {"interventions": (), "explanations": ()})


def _unknown(name: str) -> tuple[Any, ...]:
    return (name, None, None, None)


def _of_variant(v: Mapping[str, Any]) -> Iterator[tuple[Any, ...]]:
    """task, quantity, value, ci_low, ci_high, n."""
    for task, e in v["eval"].items():
        yield (task, e["metric"], e["value"], e["ci_low"], e["ci_high"], e["n"])
        yield (task, "failure_rate", e["failure_rate"], e.get("failure_low"), e.get("failure_high"), e["n"])
        yield from ((task, name, e.get(name), None, None, e["n"]) for name in ("trap_rate", "tokens_per_answer"))
        yield from ((task, f"failure:{kind}", rate, None, None, e["n"]) for kind, rate in e["failures"].items())
        yield from _of_lm_eval(task, e.get("metrics") or (), e["n"])
        if d := e.get("kl_to_dense"):
            yield (task, "kl_to_dense, nats per token", d["nats_per_token"], d["ci_low"], d["ci_high"], d["n"])
            yield (task, "top-1 agreement with dense", d["agreement"], d["agreement_low"], d["agreement_high"], d["n"])
    for group, g in (v.get("groups") or {}).items():
        yield from _of_lm_eval(group, g["metrics"], g["n"])
    yield from ((None, name, v[name], None, None, None) for name in ("parameters", "weight_bytes"))
    for r in v["serving"]["concurrency"] if v["serving"] else ():
        yield (None, f"output_tok_s at {r['concurrency']}", r["output_tok_s"], None, None, r["repeats"])
        for name in ("ttft_ms", "tpot_ms"):
            yield from (
                (None, f"{name} {p} at {r['concurrency']}", x, None, None, r["repeats"])
                for p, x in (r.get(name) or {}).items()
            )
    for name in ("kv_bytes_per_token", "kv_capacity_tokens", "resident_bytes", "peak_bytes") if v["serving"] else ():
        yield (None, name, v["serving"].get(name), None, None, None)


def _of_lm_eval(task: str, metrics: Iterable[Mapping[str, Any]], n: int) -> Iterator[tuple[Any, ...]]:
    """Every metric and filter of a task or group of lm-eval's own."""
    return ((task, f"{m['metric']}, {m['filter']}", m["value"], None, None, n) for m in metrics)


def _of_sweep(run: Mapping[str, Any]) -> Iterator[tuple[Any, ...]]:
    """Means over seeds, thresholds and claims."""
    sweep = run.get("sweep") or {"points": (), "thresholds": ()}
    for p in sweep["points"]:
        named = (p["arm"], None, None, p["ratio_neurons"], p["task"])
        yield (*named, f"{p['metric']}, mean over seeds", p["value"], p["ci_low"], p["ci_high"], p["n"])
        yield (
            *named,
            "failure_rate, mean over seeds",
            p["failure_rate"],
            p.get("failure_low"),
            p.get("failure_high"),
            p["n"],
        )
        yield (*named, "difference from dense", p["difference"], p["difference_low"], p["difference_high"], p["n"])
        yield from ((*named, name, p[name], None, None, p["n"]) for name in ("sd", "holm_p"))
        yield (*named, "specificity", *(p["specificity"] or (None, None, None)), p["n"])
    for t in sweep["thresholds"]:
        named = (t["arm"], None, None, None, run["task"])
        yield (*named, f"ratio that loses less than {t['margin']:g}", t["non_inferior"], None, None, None)
        yield (*named, "knee", t["knee"], t["knee_low"], t["knee_high"], None)
    for c in run.get("claims", ()):
        yield (
            c["claim"],
            None,
            None,
            None,
            run["task"],
            f"{c['figure']}: {c['verdict']}",
            c["value"],
            c["ci_low"],
            c["ci_high"],
            c["n"],
        )


def _of_dissociation(found: Mapping[str, Any]) -> Iterator[tuple[Any, ...]]:
    """Accuracy with every intervention, and the shares that the explanations go by."""
    for one in found["interventions"]:
        for task, outcomes in one["outcomes"].items():
            right, n = outcomes.count("1"), len(outcomes)
            yield (one["name"], one["kind"], None, one["ratio"], task, "accuracy", right / n, None, None, n)
    for e in found["explanations"]:
        what = f"{e['figure']}: {e['verdict']}"
        yield (e["explanation"], None, None, None, e["target"], what, e["value"], e["ci_low"], e["ci_high"], None)

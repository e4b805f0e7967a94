"""The answers behind a run's figures, cut to a size that fits in the page."""

from __future__ import annotations

import base64
import json
import zlib
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from harness.core.repetition import repeated_end
from harness.core.run_file import read_answers
from harness.core.types.evaluation import UNEXPLAINED
from reports.verdict import choice

BUDGET_BYTES = 620_000  # for answers; the rest of the page's 2 MB is vega and the tables
_ROWS = (10**9, 400, 200, 100, 50, 25, 10, 3)  # per variant and task, tried in order until they fit
_HEAD, _TAIL = 1500, 2500  # characters kept of a long text
_SHORT = 80  # characters of an answer that was read out of a text, to be shown beside the right one


def embedded(run: Mapping[str, Any], folder: Path, budget_bytes: int = BUDGET_BYTES) -> str | None:
    """Base64 of the deflated JSON of `browser_rows`; None where the sample files are missing; raises
    UsageError for one that leads out of the folder or has another form.
    """
    samples = {
        (v["name"], task): rows
        for v in run["variants"]
        for task, e in v["eval"].items()
        if (rows := _read(folder, e["samples"]))
    }
    if not samples:
        return None
    for most in _ROWS:
        raw = json.dumps(browser_rows(run, samples, most), ensure_ascii=True, separators=(",", ":"))
        packed = base64.b64encode(zlib.compress(raw.encode(), 9)).decode()
        if len(packed) <= budget_bytes:
            return packed
    return None


def _read(folder: Path, name: str) -> list[dict[str, Any]]:
    """Rows of answers, by item; none for texts that were scored only, and of a file that is not there."""
    rows = read_answers(folder, name) or ()
    return sorted(
        (row for row in rows if row["nll"] is None and row["doc_id"] is not None), key=lambda row: row["doc_id"]
    )


def browser_rows(
    run: Mapping[str, Any], samples: Mapping[tuple[str, str], Sequence[Mapping[str, Any]]], most: int
) -> dict[str, Any]:
    """kinds: names; open: the variant shown first; tasks: name -> {prompts: {item: text}, golds: {item: text}, total:
    answers, variants: {name: rows}}.

    A row: item, text, right (1, 0, null), kinds seen (indices, the first by precedence first), tokens, start of the
    loop or -1; then, where known, the module that the sandbox does not have, or "", and the short answer that was read.
    """
    base, chosen_one = run["variants"][0]["name"], choice(run)
    seen = (
        kind
        for v in run["variants"]
        for e in v["eval"].values()
        for kind in (*e["failures"], *e.get("wrong_by_kind", {}))
    )
    kinds = list(dict.fromkeys(seen))
    tasks: dict[str, Any] = {}
    for task in dict.fromkeys(task for _, task in samples):
        own = {name: rows for (name, t), rows in samples.items() if t == task}
        before = {row["doc_id"]: row["correct"] for row in own.get(base, ())}
        chosen = {name: list(_telling(rows, before, most)) for name, rows in own.items()}
        wanted = {row["doc_id"] for rows in chosen.values() for row in rows}
        if base in own:
            chosen[base] = [
                row for row in own[base] if row["doc_id"] in wanted
            ]  # so that every answer shown has the first model's beside it
        prompts = {
            row["doc_id"]: _cut(row["prompt"]) for rows in own.values() for row in rows if row["doc_id"] in wanted
        }
        golds = {
            row["doc_id"]: _cut(row["gold"])
            for rows in own.values()
            for row in rows
            if row["doc_id"] in wanted and row.get("gold")
        }
        variants = {name: [_row(row, kinds) for row in rows] for name, rows in chosen.items()}
        total = sum(map(len, own.values()))
        tasks[task] = {"prompts": prompts, "golds": golds, "total": total, "variants": variants}
    opened = chosen_one.variant["name"] if chosen_one else None
    return {"kinds": kinds, "base": base, "open": opened, "target": run["task"], "arms": _arms(run), "tasks": tasks}


def _arms(run: Mapping[str, Any]) -> list[list[Any]]:
    """[arm, % removed, variants, task] of every point of a sweep, for clicks on a curve."""
    points = run["sweep"]["points"] if run.get("sweep") else ()
    return [[p["arm"], 100 * p["ratio_neurons"], p["variants"], p["task"]] for p in points]


def _telling(
    rows: Sequence[Mapping[str, Any]], before: Mapping[int, bool | None], most: int
) -> Iterator[Mapping[str, Any]]:
    """At most `most` rows: flips and failures first, then the others, in item order."""
    if len(rows) <= most:
        yield from rows
        return
    ranked = sorted(
        rows, key=lambda row: (row["correct"] == before.get(row["doc_id"]) and not row["failures"], row["doc_id"])
    )
    yield from sorted(ranked[:most], key=lambda row: row["doc_id"])


def _row(row: Mapping[str, Any], kinds: Sequence[str]) -> list[Any]:
    text = _cut(f"{row.get('reasoning') or ''}{row['text']}")
    loop = repeated_end(text) if "loop" in row["failures"] else None
    right = None if row["correct"] is None else int(row["correct"])
    found = row["failures"] or ([] if row["correct"] is not False or UNEXPLAINED not in kinds else [UNEXPLAINED])
    start = len(text[: loop.start].encode("utf-16-le", "surrogatepass")) // 2 if loop else -1  # as JavaScript counts
    read = row["prediction"] if len(row["prediction"] or "") <= _SHORT else None  # a program is the text itself
    known = [row["missing_module"] or "", *([read] if read else [])] if row["missing_module"] or read else []
    return [row["doc_id"], text, right, [kinds.index(kind) for kind in found], row["n_tokens"], start, *known]


def _cut(text: str) -> str:
    left_out = len(text) - _HEAD - _TAIL
    return text if left_out <= 0 else f"{text[:_HEAD]}\n[... {left_out:,} characters omitted ...]\n{text[-_TAIL:]}"

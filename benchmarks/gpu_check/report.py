"""results.json -> report.md for all parts, and run.json with its report for the serving figures of each model:
`python -m benchmarks.gpu_check.report FOLDER` renders them again.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from pydantic import TypeAdapter

from harness.core.bounded_read import read_json_object
from harness.core.files import write_json, write_text
from harness.core.text import markdown, size_text
from harness.core.types.run import Variant
from harness.core.types.serving import SpeedRatio
from harness.pipeline.run_json import build_run, publish

RESULTS = "results.json"
_INNER = ("variant", "speed_ratios")  # figures that go to run.json
_DIGITS = 4

Entry = Mapping[str, Any]


def read_results(folder: Path) -> dict[str, Any]:
    """results.json; raises UsageError where it is damaged, OSError where there is none."""
    return read_json_object(folder / RESULTS)


def write_results(results: Mapping[str, Any], folder: Path) -> None:
    write_json(folder / RESULTS, results)


def failed(results: Mapping[str, Any]) -> list[str]:
    """The names of the entries that ended with an error."""
    return [entry["name"] for entry in results["parts"] if "error" in entry]


def write_report(folder: Path) -> None:
    """Writes report.md, and for each model with a dense row a folder with run.json, report.html and report.md."""
    results = read_results(folder)
    write_text(folder / "report.md", report(results))
    for model in dict.fromkeys(entry["model"] for entry in results["parts"] if entry["model"]):
        entries = [entry for entry in results["parts"] if entry["model"] == model and "figures" in entry]
        rows = [TypeAdapter(Variant).validate_python(row) for row in _inner(entries, "variant")]
        if rows and rows[0].method == "dense":  # the report compares with the first row
            _publish(model, rows, entries, results, folder / model)


def _publish(
    model: str, rows: Sequence[Variant], entries: Sequence[Entry], results: Mapping[str, Any], folder: Path
) -> None:
    ratios = [SpeedRatio(**ratio) for found in _inner(entries, "speed_ratios") for ratio in found]
    made = build_run(model, "random prompts", rows, " && ".join(results["commands"]))
    where = {key: results[key] for key in ("created", "versions", "hardware")} | {"model_kind": "unknown"}
    folder.mkdir(exist_ok=True)
    engine = rows[0].serving.engine if rows[0].serving else None
    publish(replace(made, speed_ratios=tuple(ratios), engine=engine, **where), folder)


def _inner(entries: Sequence[Entry], name: str) -> list[Any]:
    return [entry["figures"][name] for entry in entries if name in entry["figures"]]


def report(results: Mapping[str, Any]) -> str:
    """Markdown: what was measured where and with which versions, one line for each part, then its figures."""
    versions = ", ".join(f"{name} {version}" for name, version in results["versions"].items())
    said = [
        f"# gpu-check on {markdown(results['hardware_name'])}",
        "",
        f"{markdown(results['created'])}; {markdown(versions)}.",
        "",
        *(f"    {command}" for command in results["commands"]),
        "",
        *_table(("part", "seconds", "result"), (_outcome(entry) for entry in results["parts"])),
    ]
    for entry in results["parts"]:
        if "figures" in entry:
            said += ["", f"## {markdown(entry['name'])}", "", *_table(("figure", "value"), _rows(entry["figures"]))]
    return "\n".join([*said, ""])


def _outcome(entry: Entry) -> tuple[str, ...]:
    result = entry.get("error") or entry.get("left_out") or "measured"
    return entry["name"], f"{entry.get('seconds', 0):.1f}", result


def _table(head: Sequence[str], rows: Iterator[tuple[str, ...]]) -> list[str]:
    lines = [head, ["---"] * len(head)]
    return [f"| {' | '.join(line)} |" for line in lines] + [f"| {' | '.join(map(markdown, row))} |" for row in rows]


def _rows(figures: Mapping[str, Any]) -> Iterator[tuple[str, ...]]:
    return ((name.replace("_", " "), shown(name, value)) for name, value in figures.items() if name not in _INNER)


def shown(name: str, value: Any) -> str:
    """A figure as text: bytes in their unit, numbers with four digits, what was not measured by these words."""
    if value is None:
        return "not measured"
    if isinstance(value, Mapping):
        return ", ".join(f"{key} {shown(key, each)}" for key, each in value.items())
    if isinstance(value, list):
        return ", ".join(shown(name, each) for each in value)
    if name.endswith("_bytes"):
        return size_text(value)
    return f"{value:.{_DIGITS}g}" if isinstance(value, float) else str(value)


if __name__ == "__main__":
    write_report(Path(sys.argv[1]))

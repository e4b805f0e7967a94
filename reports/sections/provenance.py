"""Provenance: model, data, formula, seeds, versions, hardware and command."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from harness.core.chat import notes
from reports.figures import mebibytes
from reports.parts import Section, Table


def section(run: Mapping[str, Any]) -> Section:
    return Section(
        name="provenance",
        title="Provenance",
        text=(),
        charts=(),
        tables=(provenance_table(run),),
        folded=(variants_table(run),),
    )


def provenance_table(run: Mapping[str, Any]) -> Table:
    rows = [
        ("model", _model(run)),
        ("command", run["command"] or "none, a call from Python"),
        ("created", run["created"]),
        *_calibration_rows(run["calibration"]),
        *_chat_rows(run.get("chat")),
        ("seeds", ", ".join(map(str, sorted(set(run["seeds"])))) or "none"),
        ("model hash", run.get("model_hash") or "not recorded"),
        ("versions", ", ".join(f"{name} {version}" for name, version in run["versions"].items())),
        ("hardware", ", ".join(_hardware(run["hardware"]))),
        *_engine_rows(run.get("engine") or {}),
    ]
    return Table("Provenance", ("what", "value"), tuple(rows))


def _hardware(found: Mapping[str, Any]) -> Iterator[str]:
    for name, value in found.items():
        if name == "memory_bytes":
            yield f"memory {mebibytes(value)}"
        elif value not in (None, []):
            yield f"{name.replace('_', ' ')} {_plain(value)}"


def _model(run: Mapping[str, Any]) -> str:
    """Its name, and what that is where it can be told."""
    kind = run.get("model_kind", "unknown")
    return str(run["model"]) if kind in ("unknown", "alias") else f"{run['model']} ({kind})"


def variants_table(run: Mapping[str, Any]) -> Table:
    rows = tuple((v["name"], _how(v)) for v in run["variants"] if v["method"] != "dense")
    return Table("How each variant was made", ("variant", "how"), rows)


def _calibration_rows(calibration: Mapping[str, Any]) -> list[tuple[str, str]]:
    if not calibration:
        return []
    return [
        ("target calibration", f"{calibration['n_target']} prompts of {calibration['target']}"),
        ("distractors", f"{calibration['n_distractor']} prompts of {', '.join(calibration['distractors'])}"),
        ("tokens scored", calibration["tokens"]),
        ("score", calibration.get("formula") or "none"),
        ("calibration hash", calibration["hash"]),
    ]


def _chat_rows(chat: Mapping[str, Any] | None) -> list[tuple[str, str]]:
    """What is unusual about the prompts; nothing where the template was used as it is."""
    found = notes(chat) if chat else ()
    return [("chat template", "; ".join(found))] if found else []


def _engine_rows(engine: Mapping[str, Any]) -> list[tuple[str, str]]:
    """How the engine computed, and what it was told by vLLM's own names; nothing for older runs."""
    known = {name: value for name, value in engine.items() if value is not None and name != "options"}
    facts = [f"{name.replace('_', ' ')} {_plain(value)}" for name, value in known.items()]
    given = [f"{name}={_plain(value)}" for name, value in (engine.get("options") or {}).items()]
    rows = [("engine", ", ".join(facts)), ("vLLM's own options", ", ".join(given))]
    return [(name, text) for name, text in rows if text]


def _plain(value: Any) -> str:
    return str(value).lower() if isinstance(value, bool) else str(value)


def _how(v: Mapping[str, Any]) -> str:
    """How a variant was pruned, in words."""
    refit = ", remaining down_proj columns re-fitted" if v["compensated"] else ""
    metric = f", metric {v['metric']}" if v["metric"] else ""
    return (
        f"method {v['method']}{metric}{refit}, {v['allocation']} widths, alignment {v['alignment']}, seed {v['seed']}"
    )

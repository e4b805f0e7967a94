"""Which rows of an earlier file stay, and that the published file is what the printed command makes."""

from __future__ import annotations

import json
from pathlib import Path

from benchmarks.perplexity import ARMS, rows_kept

PUBLISHED = Path(__file__).parents[2] / "docs" / "perplexity.json"


def test_the_default_arms_make_every_row_of_the_published_file() -> None:
    found = json.loads(PUBLISHED.read_text(encoding="utf-8"))
    assert {row["arm"] for row in found.pop("rows")} == {"dense", *ARMS}
    assert rows_kept(PUBLISHED, found, ARMS, (0.2, 0.3, 0.5)) == []


def test_rows_of_the_same_settings_that_are_not_measured_anew_stay(tmp_path: Path) -> None:
    rows = [{"arm": arm, "ratio": ratio} for arm, ratio in (("dense", 0.0), ("rms", 0.5), ("obs", 0.3), ("obs", 0.5))]
    (tmp_path / "found.json").write_text(json.dumps({"model": "m", "samples": 8, "rows": rows}))
    kept = rows_kept(tmp_path / "found.json", {"model": "m", "samples": 8}, ["obs"], [0.5])
    assert [tuple(row.values()) for row in kept] == [("rms", 0.5), ("obs", 0.3)]
    assert rows_kept(tmp_path / "found.json", {"model": "m", "samples": 9}, ["obs"], [0.5]) == []
    assert rows_kept(tmp_path / "none.json", {"model": "m"}, ["obs"], [0.5]) == []

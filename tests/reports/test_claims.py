"""What is said beside a claim's verdict, in a sentence and in the table."""

from __future__ import annotations

from typing import Any

import pytest

from reports.sections.claims import claims_table, sweep_sentences

ACCURACY = "accuracy 9.0 % (6.3 % to 12.8 %), gone below 10.0 %"
CLAIM = {
    "claim": "2. x",
    "verdict": "cannot say",
    "rule": "r",
    "figure": "advantage",
    "unit": "points",
    "value": 0.431,
    "ci_low": 0.092,
    "ci_high": 0.77,
    "n": 300,
    "n_needed": None,
    "details": [ACCURACY, "mini_code beyond random: +43.1 points"],
}
OWN = "advantage +43.1 points, +9.2 points to +77.0 points, n = 300"


def said(**changes: Any) -> tuple[str, str]:
    """The sentence's words in brackets, and the table's last column."""
    run = {"claims": [{**CLAIM, **changes}]}
    (sentence,), table = sweep_sentences(run), claims_table(run)
    return sentence.partition(" (")[2].removesuffix(")."), dict(zip(table.head, table.rows[0], strict=True))[
        "why nothing can be said"
    ]


@pytest.mark.parametrize(
    ("details", "why"),
    [
        (["cannot say: too few items", *CLAIM["details"]], f"too few items; {ACCURACY}"),
        ([ACCURACY, "missing: random at 10.0 %"], f"missing: random at 10.0 %; {ACCURACY}"),  # wherever it stands
        (CLAIM["details"], ACCURACY),
        (
            [*(f"missing: {i} %" for i in range(5)), ACCURACY],
            f"missing: 0 %; missing: 1 %; missing: 2 %; 2 more such reasons; {ACCURACY}",
        ),
    ],
)
def test_an_interval_without_0_is_not_what_is_open_and_the_reason_comes_first(details: list[str], why: str) -> None:
    assert said(details=details) == (f"{why}; {OWN}", why)


def test_where_the_claims_own_interval_is_open_it_is_all_that_is_said() -> None:
    assert said(ci_low=-0.1, n_needed=900) == (f"{OWN.replace('+9.2', '-10.0')}; 900 would decide", "")


def test_a_verdict_needs_no_reason_and_without_a_figure_the_first_detail_is_it() -> None:
    assert said(verdict="supported") == (OWN, "")
    nothing = {"value": None, "ci_low": None, "ci_high": None, "n": None}
    assert said(**nothing, details=["cannot say: no masks"]) == ("no masks", "no masks")
    assert said(**nothing, verdict="not supported", details=["no knee"]) == ("no knee", "")

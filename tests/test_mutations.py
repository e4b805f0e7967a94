"""The list of mutations fits the tree; that each is noticed is for `python -m scripts.mutate` to say."""

from __future__ import annotations

import re
from dataclasses import replace

import pytest

from scripts.mutate import ROOT, Mutation, read_mutations, stale
from tests.conftest import TIERS

MUTATIONS = read_mutations()


def test_every_mutation_has_its_place_and_its_tests() -> None:
    assert stale(MUTATIONS) == [] and len(MUTATIONS) >= 40
    assert len({(mutation.file, mutation.old) for mutation in MUTATIONS}) == len(MUTATIONS)


@pytest.mark.parametrize("mutation", MUTATIONS, ids=lambda mutation: mutation.what)
def test_the_tests_of_a_mutation_are_in_its_tier(mutation: Mutation) -> None:
    """Else none of them runs, and scripts/mutate ends with an error. By the marks of whole modules."""
    for test in mutation.tests:
        source = (ROOT / test.partition("::")[0]).read_text(encoding="utf-8")
        line = re.search(r"^pytestmark = (.*)$", source, re.MULTILINE)
        assert TIERS[mutation.tier](set(re.findall(r"mark\.(\w+)", line[1])) if line else set()), test


def test_a_mutation_that_does_not_fit_is_named() -> None:
    first = MUTATIONS[0]
    for change, said in (
        ({"old": "no such text"}, "stands there 0 times"),
        ({"old": "def "}, "times, not once"),
        ({"file": "gone.py"}, "stands there 0 times"),
        ({"new": first.old}, "replaced by itself"),
        ({"tests": ("tests/gone.py::test_x",)}, "tests/gone.py::test_x does not exist"),
    ):
        assert said in stale([replace(first, **change)])[0]  # type: ignore[arg-type]

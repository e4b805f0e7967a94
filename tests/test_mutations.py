"""The list of mutations fits the tree; that each is noticed is for `python -m scripts.mutate` to say."""

from __future__ import annotations

from dataclasses import replace

from scripts.mutate import read_mutations, stale

MUTATIONS = read_mutations()


def test_every_mutation_has_its_place_and_its_tests() -> None:
    assert stale(MUTATIONS) == [] and len(MUTATIONS) >= 40
    assert len({(mutation.file, mutation.old) for mutation in MUTATIONS}) == len(MUTATIONS)


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

"""The trusted process between us and a sandbox: runs a task's own tests and hands their calls to the candidate inside.

Started by tasks/sandbox.py as `python -m tasks.jail.checker CONFINEMENT FOLDER CORE`; one job a line on standard input,
one verdict a line on standard output. It is a process of its own because tests work on what the candidate returned: a
value that keeps them busy is ended from outside.
"""

from __future__ import annotations

import builtins
import contextlib
import json
import os
import re
import resource
import signal
import sys
from collections.abc import Mapping
from typing import Any

from tasks.jail.cell import Candidate, Ended, Jail, Limits, Outcome
from tasks.jail.confinement import Confinement
from tasks.jail.values import loads

NO_REFERENCE = "no_reference"  # the outcome where the program that tests compare with gives nothing
_ALARM, _ALARM_S = 2, 10  # times a program's limit, and seconds more: this process ends itself if its parent was killed
_MEMORY = 1 << 30  # of this process: tests, and what they build from returned values
_PYTHONS_OWN = frozenset(dir(builtins))
_WORD = re.compile(r"[^\W\d]\w*")


def check(jail: Jail, job: Mapping[str, Any]) -> Outcome:
    """passed, wrong (a test failed), or what happened to the candidate. Raises OSError where the sandbox is gone."""
    limits, given = Limits(**job["limits"]), {}
    if "reference" in job:
        given = {"reference_cases": _reference_cases(jail, job["reference"], job["entry_point"], limits)}
        if not given["reference_cases"]:
            return Outcome(NO_REFERENCE)
    try:
        with jail.candidate(job["program"], limits) as candidate:
            return _outcome(candidate, job["entry_point"], job["test"], given)
    except Ended as end:
        return end.outcome


def _reference_cases(
    jail: Jail, reference: Mapping[str, Any], entry_point: str, limits: Limits
) -> list[tuple[list[Any], Any]]:
    """(arguments, output) of each input on which the reference raises nothing; none where it ends before the last."""
    found = []
    try:
        with jail.candidate(reference["program"], limits) as candidate:
            for text in reference["inputs"]:
                arguments = loads(text, _no_object)
                with contextlib.suppress(Exception):
                    found.append((arguments, candidate.call(entry_point, tuple(arguments), {})))
    except Ended:
        return []
    return found


def _no_object(number: int) -> Any:
    raise ValueError(f"object {number} stands for nothing")


def _outcome(candidate: Candidate, entry_point: str, test: str, given: Mapping[str, Any]) -> Outcome:
    space = {**_names(candidate, entry_point, test), **given}
    if not callable(space.get(entry_point)):
        return Outcome("no_entry_point")
    try:
        exec(compile(test, "test", "exec"), space)
    except Exception as error:
        if not getattr(error, "from_candidate", False):
            return Outcome("wrong")
        return Outcome("runtime_error", getattr(error, "missing_module", None))
    if candidate.over:
        raise candidate.over
    return Outcome("passed")


def _names(candidate: Candidate, entry_point: str, test: str) -> dict[str, Any]:
    """The test's globals: what it mentions of the program's, functions and objects as Opaque. Python's own names stay
    Python's.
    """
    mentioned = ({*_WORD.findall(test)} - _PYTHONS_OWN | {entry_point}) & candidate.defined.keys()
    return {"__name__": "tests", **{name: candidate.get(name) for name in sorted(mentioned)}}


def main() -> None:
    """Answers on a private descriptor, so that a test's print goes nowhere."""
    resource.setrlimit(resource.RLIMIT_AS, (_MEMORY, _MEMORY))
    with contextlib.suppress(OSError):  # a core that was taken away meanwhile
        os.sched_setaffinity(0, {int(sys.argv[3])})
    confinement, folder = Confinement(**json.loads(sys.argv[1])), sys.argv[2]
    answers = os.fdopen(os.dup(1), "w")
    os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
    jail = Jail(confinement, folder)
    print("ready", file=answers, flush=True)
    for line in sys.stdin:
        if jail.broken:
            jail.close()
            jail = Jail(confinement, folder)
        job = json.loads(line)
        signal.alarm(int(_ALARM * job["limits"]["wall_s"]) + _ALARM_S)
        try:
            outcome = check(jail, job)
        except OSError:
            jail.broken = True
            outcome = Outcome("sandbox")
        signal.alarm(0)
        print(json.dumps({"kind": outcome, "missing_module": outcome.missing_module}), file=answers, flush=True)
    jail.close()


if __name__ == "__main__":
    main()

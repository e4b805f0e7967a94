"""Coverage-guided fuzzing of the extractors and detectors: never an exception. Needs `pip install atheris`.

python benchmarks/fuzz.py -max_total_time=3600 -max_len=4096 CORPUS_FOLDER
"""

from __future__ import annotations

import sys

import atheris

with atheris.instrument_imports(include=["tasks"]):
    from tasks import answers, bbh, degeneration, failures, gibberish, numbers, programs  # noqa: F401
    from tasks.bbh import task as bbh_task

_FINDERS = (answers.boxes, answers.hashes, answers.statements)
_PROMPT = 'import math\n\ndef add(a, b):\n    """Adds."""\n'


def once(data: bytes) -> None:
    """One text through everything that reads a model's words."""
    text = atheris.FuzzedDataProvider(data).ConsumeUnicode(len(data))
    for truncated in (False, True):
        found = answers.final_answer(text, _FINDERS, truncated)
        assert found is None or numbers.number_in(found) is not None
    numbers.number_in(text)
    for prompt in ("", _PROMPT):
        program = programs.find_program(text, "add", prompt)
        assert program is None or program.strip()
    bbh_task.extract({}, text)
    for reason in (None, "stop", "length"):
        seen = failures.detect(failures.GradedAnswer(text, None, False, meta={"finish_reason": reason}))
        assert len(seen) == len(failures.FailureKind)


if __name__ == "__main__":
    atheris.Setup(sys.argv, once)
    atheris.Fuzz()

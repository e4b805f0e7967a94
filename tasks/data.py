"""Data sets of others: from HARNESS_DATA_DIR where it is set, else from the Hub. None of them is part of this
project.
"""

from __future__ import annotations

import hashlib
import os
import random
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from harness.core.bounded_read import open_regular, read_text
from harness.core.errors import UsageError
from harness.core.hub import only_cache_without_hub
from harness.core.jsonl import read_rows
from harness.core.types.calibration import Example
from tasks.splits import PAPER_ROWS, PAPER_SOURCE, paper_split, sample, split_of
from tasks.wikitext.articles import articles, halves

DATA_DIR, TRUST_DATA = "HARNESS_DATA_DIR", "HARNESS_TRUST_DATA"
# files whose tests run as the user, outside the sandbox: SHA-256 of what was published
_CODE_FILES: Mapping[str, str] = {
    "HumanEval.jsonl": "1d49078ba3e2b196b9344535bef34a43021f038fad9561d6ee7c53450609a6a2",
    "mbpp.jsonl": "ccf64ceae9c5403bf50a044cb6d505bfd2a2963ee58338ba268fd65beab92a9f",
}
# EvalPlus's files, whose published contents are not known here
EVALPLUS_HUMANEVAL, EVALPLUS_MBPP = "HumanEvalPlus*.jsonl", "MbppPlus*.jsonl"
_WIKITEXT_BYTES = 256 << 20
_CONVERSATIONS, _TURNS = "suriya7/everyday-Conversational-cleaned", 3
_GO_ON = "Go on with this conversation for a few turns."


def local_file(name: str) -> Path | None:
    """The path of a file in HARNESS_DATA_DIR; None if the variable is unset.

    Raises:
        UsageError: the variable is set and the file is missing, or holds unknown code (`check_code_files`).
    """
    folder = os.environ.get(DATA_DIR)
    if not folder:
        return None
    path = Path(folder) / name
    if not path.exists():
        raise UsageError(f"{path} is missing; put it there, or unset {DATA_DIR} to use the Hub")
    check_code_files([name])
    return path


def local_lines(name: str) -> list[str] | None:
    """The lines of a text file in HARNESS_DATA_DIR; None if the variable is unset."""
    file = local_file(name)
    return read_text(file, _WIKITEXT_BYTES).splitlines() if file else None


def check_code_files(names: Iterable[str]) -> None:
    """Raises UsageError for a file of HARNESS_DATA_DIR with tests that are not the published ones, unless it is
    trusted (`trusting`, or HARNESS_TRUST_DATA).
    """
    names = set(names)
    for pattern in sorted(names & {EVALPLUS_HUMANEVAL, EVALPLUS_MBPP}):
        evalplus_file(pattern)
    folder = os.environ.get(DATA_DIR)
    for name in _CODE_FILES.keys() & names if folder and not _trusted() else ():
        path = Path(str(folder)) / name
        if path.exists() and _sha256(path) != _CODE_FILES[name]:
            raise UsageError(
                f"{path} is not the published file, and its tests run as you, outside the sandbox; "
                "read it and give --trust-data, or take it out of the folder"
            )


def evalplus_file(pattern: str) -> Path:
    """The path of EvalPlus's file in HARNESS_DATA_DIR; there is no other source of it.

    Args:
        pattern: EVALPLUS_HUMANEVAL or EVALPLUS_MBPP; the file's name has a version.

    Raises:
        UsageError: there is none or more than one, or it is not trusted.
    """
    folder = os.environ.get(DATA_DIR)
    found = sorted(Path(folder).glob(pattern)) if folder else []
    if len(found) != 1:
        count = f"{len(found)} of them are" if found else "none is"
        raise UsageError(
            f"EvalPlus's tests are in its file {pattern}, and {count} in {DATA_DIR} ({folder or 'which is not set'}); "
            "put one there"
        )
    if not _trusted():
        raise UsageError(
            f"{found[0]} decides what is right, holds code, and its published contents are not known here; "
            "read it and give --trust-data"
        )
    return found[0]


def _trusted() -> bool:
    return os.environ.get(TRUST_DATA, "").lower() in ("1", "true", "t", "yes", "y", "on")


def _sha256(path: Path) -> str:
    with open_regular(path) as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


@contextmanager
def trusting(trusted: bool) -> Iterator[None]:
    """Whether data files with unknown code are used while inside, also by processes that are started there."""
    before = os.environ.get(TRUST_DATA)
    if trusted != _trusted():
        os.environ[TRUST_DATA] = "1" if trusted else "0"
    try:
        yield
    finally:
        if before is None:
            os.environ.pop(TRUST_DATA, None)
        else:
            os.environ[TRUST_DATA] = before


def hub_rows(dataset: str, config: str | None, split: str, file: str = "") -> list[dict[str, Any]]:
    """All rows of one split of a Hub data set.

    Args:
        dataset: Hub id.
        config: the name of its configuration, None for the only one.
        split: such as "train".
        file: the name of its local copy in HARNESS_DATA_DIR.

    Raises:
        UsageError: it cannot be loaded; says how to do without the network.
    """
    from datasets import load_dataset

    only_cache_without_hub()
    try:
        return list(load_dataset(dataset, config, split=split))
    except Exception as error:  # the libraries below raise many kinds for one cause: not reachable
        where = f"a folder with its local copy {file}" if file else "a folder with local copies"
        raise UsageError(
            f"{dataset} cannot be loaded from the Hub ({type(error).__name__}); set {DATA_DIR} to {where}"
        ) from error


def general_prompts(n: int, seed: int) -> tuple[tuple[str, ...], list[Example]]:
    """Distractors as in the paper: half SQuAD questions, half everyday conversations, or local stand-ins for them.

    Returns:
        The names of both sources, and up to `n` prompts.

    Raises:
        UsageError: a data set cannot be loaded, or has other columns than it is known for.
    """
    names, first, second = _general()
    if local_file("bbh_general.jsonl") is None:  # what the paper's split holds out is what `similarity` asks
        second = paper_split(second, "conversations")[0] + second[PAPER_ROWS:]
    rng = random.Random(seed)
    return names, rng.sample(first, min(n - n // 2, len(first))) + rng.sample(second, min(n // 2, len(second)))


def paper_prompts(n: int, seed: int) -> tuple[tuple[str, ...], list[Example]]:
    """`general_prompts` out of the rows that the paper's scripts score: 80 % of the first 1000 of each source."""
    names, first, second = _general()
    questions, _ = paper_split(first, "questions")
    others, _ = paper_split(second, "conversations")
    found = sample(questions, n - n // 2, seed) + sample(others, n // 2, seed)
    return tuple(f"{name}, {PAPER_SOURCE}" for name in names), found


def _general() -> tuple[tuple[str, str], list[Example], list[Example]]:
    """The names of both sources, questions, and texts without a question."""
    file = local_file("bbh_general.jsonl")
    if file is None:
        names = ("SQuAD", "everyday-Conversational-cleaned")
        return names, _squad(), [Example("", text) for text in conversations()]
    rows = [Example(row["input"], str(row["target"])) for row in read_rows(file)]
    names = ("BIG-Bench-Hard inputs (stand-in)", "WikiText-2 (stand-in)")
    first = [row for row in rows if split_of(row.prompt) == "train"]
    return names, first, [Example("", text) for text in paragraphs()]


def _squad() -> list[Example]:
    rows = hub_rows("rajpurkar/squad", None, "train", "bbh_general.jsonl")
    return [Example(f"{row['context']}\n{row['question']}", row["answers"]["text"][0]) for row in rows]


def conversations() -> list[str]:
    """Everyday conversations as text: their first three turns and a line that asks to go on, as in the paper's
    scripts; shorter ones are left out.

    Raises:
        UsageError: the data set cannot be loaded, or its rows are not conversations.
    """
    rows = hub_rows(_CONVERSATIONS, None, "train", "wikitext2_test.txt")
    found = [_conversation(row, f"{_CONVERSATIONS}, row {number}") for number, row in enumerate(rows, 1)]
    if not any(found):
        raise UsageError(f"{_CONVERSATIONS} has no conversation of {_TURNS} turns; set {DATA_DIR} to a local copy")
    return [text for text in found if text]


def _conversation(row: Mapping[str, Any], where: str) -> str | None:
    """None for one that is too short."""
    given = row.get("conversations")
    messages = [message for message in given if isinstance(message, Mapping)] if isinstance(given, list) else []
    if messages != given or not all(isinstance(one.get(key), str) for one in messages for key in ("role", "content")):
        raise UsageError(
            f"{where} is not known as a conversation: `conversations` must be a list of messages with the texts `role` "
            f"and `content`; use the published data set, or set {DATA_DIR} for the local stand-ins"
        )
    lines = [f"{one['role']}: {one['content']}" for one in messages[:_TURNS]]
    return "\n".join([*lines, _GO_ON]) if len(messages) >= _TURNS else None


def plain_texts(n: int, seed: int) -> tuple[tuple[str, ...], list[Example]]:
    """Distractors without questions, for tasks that are such questions themselves: up to `n` paragraphs."""
    return ("WikiText-2",), sample([Example("", text) for text in paragraphs()], n, seed)


def paragraphs(shortest: int = 200, longest: int = 1500) -> list[str]:
    """Of WikiText-2: the local articles that the task `wikitext` does not evaluate, else the training split."""
    lines = local_lines("wikitext2_test.txt")
    if lines is not None:
        _, ours = halves(articles(lines))
    else:
        ours = articles(
            row["text"] for row in hub_rows("Salesforce/wikitext", "wikitext-2-raw-v1", "train", "wikitext2_test.txt")
        )
    return [line.strip()[:longest] for page in ours for line in page.splitlines() if len(line) >= shortest]

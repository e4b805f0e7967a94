"""The rows that are trained on: token ids, and labels that leave out the prompt."""

from __future__ import annotations

import random
import re
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence, Set
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from harness.core.chat import ChatFormat, prompt_ids, prompt_text
from harness.core.errors import UsageError
from harness.core.jsonl import numbered_rows
from harness.core.reasoning import follow_prompt
from harness.core.types.calibration import Example

IGNORED = -100  # a label that has no part in the loss
FILE = "train.jsonl"
_PAIRS = (  # columns of instruction data sets in the wild
    ("prompt", "completion"),
    ("question", "answer"),
    ("instruction", "output"),
    ("instruction", "response"),
    ("query", "answer"),
    ("query", "response"),
    ("problem", "solution"),
    ("input", "output"),
)
_HEAD = 6  # words by which a test item is looked for
_MARK = "\u2063"  # stands for an answer while the template's end of a turn is looked up


_Words = tuple[str, ...]


@dataclass(frozen=True)
class TrainingData:
    """`rows`: {"input_ids", "labels"}; `left_out`: examples whose prompt leaves no room for an answer."""

    source: str
    rows: tuple[dict[str, list[int]], ...]
    left_out: int
    end_token: int  # the last of the tokens that end an answer

    @property
    def tokens(self) -> int:
        return sum(len(row["input_ids"]) for row in self.rows)

    @property
    def answer_tokens(self) -> int:
        return sum(sum(label != IGNORED for label in row["labels"]) for row in self.rows)


def build(
    source: str,
    examples: Sequence[Example],
    tokenizer: Any,
    chat: ChatFormat | None,
    longest: int,
) -> TrainingData:
    """Prompt as the evaluation asks it, answer, and the tokens that end it; UsageError where nothing is left.

    Reasoning that the prompt opens is closed before the answer, and that is trained too. An answer beyond `longest`
    tokens is cut, and then not ended.
    """
    end = end_of_answer(tokenizer, chat)
    if not examples:
        raise UsageError(f"{source} gives no training example; give other --data")
    answers = (_ids(tokenizer, _completion(tokenizer, example, chat)) + end for example in examples)
    prompts = (prompt_ids(tokenizer, example, chat) for example in examples)
    rows = [row for prompt, answer in zip(prompts, answers, strict=True) if (row := _row(prompt, answer, longest))]
    if not rows:
        raise UsageError(
            f"{source} gives no example that fits {longest} tokens; give other --data or a larger --max-length"
        )
    return TrainingData(source, tuple(rows), len(examples) - len(rows), end[-1])


def build_texts(source: str, texts: Sequence[str], tokenizer: Any, end_token: int, longest: int) -> TrainingData:
    """Plain texts, without a chat template: every token counts in the loss, and the end is not taught.

    Raises UsageError where there are none.
    """
    rows = [ids[:longest] for text in texts if (ids := list(tokenizer(text)["input_ids"]))]
    if not rows:
        raise UsageError(f"{source} gives no training text; check the data set")
    return TrainingData(source, tuple({"input_ids": ids, "labels": ids} for ids in rows), 0, end_token)


def mixed(parts: Sequence[TrainingData], seed: int) -> TrainingData:
    """The rows of all parts in one random order."""
    rows = [row for part in parts for row in part.rows]
    random.Random(seed).shuffle(rows)
    source = ", ".join(f"{part.source} {len(part.rows)}" for part in parts)
    return TrainingData(source, tuple(rows), sum(part.left_out for part in parts), parts[0].end_token)


def _completion(tokenizer: Any, example: Example, chat: ChatFormat | None) -> str:
    if chat is None:
        return example.answer
    return "".join(follow_prompt(prompt_text(tokenizer, example, chat), example.answer, chat.before_answer))


def _row(prompt: list[int], answer: list[int], longest: int) -> dict[str, list[int]] | None:
    if len(prompt) >= longest:
        return None
    ids = (prompt + answer)[:longest]
    return {"input_ids": ids, "labels": [IGNORED] * len(prompt) + ids[len(prompt) :]}


def _ids(tokenizer: Any, text: str) -> list[int]:
    return list(tokenizer(text, add_special_tokens=False)["input_ids"])


def under_headings(example: Example, kind: str) -> Example:
    """The frame of the paper's scripts, plain text: the prompt under one heading, the answer under another."""
    asked, answered = ("Instruction", "Response") if kind == "code" else ("Question", "Answer")
    system = f"{example.system}\n\n" if example.system else ""
    return Example(f"### {asked}:\n{example.prompt.strip()}\n\n### {answered}:\n{system}", example.answer)


def end_of_answer(tokenizer: Any, chat: ChatFormat | None) -> list[int]:
    """What the chat template puts behind an assistant's turn, up to its first special token; else the end-of-text
    token.
    """
    if chat:
        turns = [{"role": "user", "content": "?"}, {"role": "assistant", "content": _MARK}]
        _, mark, after = chat.render(tokenizer, turns, add_generation_prompt=False).rpartition(_MARK)
        rest = _ids(tokenizer, after if mark else "")  # some templates leave an answer out
        special = set(tokenizer.all_special_ids) | set(tokenizer.get_added_vocab().values())
        stop = next((i for i, token in enumerate(rest) if token in special), None)
        if stop is not None:
            return rest[: stop + 1]
    if tokenizer.eos_token_id is None:
        raise UsageError(
            "the tokenizer has no end-of-text token, so the model cannot be taught to stop; set eos_token in its config"
        )
    return [int(tokenizer.eos_token_id)]


def pair(row: Mapping[str, Any], where: str) -> Example:
    """Prompt and answer of a row of any instruction data set: `messages`, or a known pair of columns.

    Raises UsageError that begins with `where` for a row that has neither.
    """
    if turns := row.get("messages"):
        try:
            said = [(turn["role"], turn["content"]) for turn in turns]
        except (KeyError, TypeError):
            said = []
        roles, texts = [role for role, _ in said], [text for _, text in said]
        if roles not in (["user", "assistant"], ["system", "user", "assistant"]) or not all(
            isinstance(text, str) for text in texts
        ):
            raise UsageError(
                f"{where}: messages must be one user turn and one assistant turn, a system turn before them if need be"
            )
        return Example(texts[-2], texts[-1], texts[0] if len(texts) == 3 else "")
    for prompt, answer in _PAIRS:
        if isinstance(row.get(prompt), str) and isinstance(row.get(answer), str):
            # Alpaca's form has an optional input beside the instruction
            context = f"\n\n{row['input']}" if prompt == "instruction" and row.get("input") else ""
            return Example(row[prompt] + context, row[answer], str(row.get("system") or ""))
    raise UsageError(
        f"{where} has the columns {', '.join(sorted(row))}; "
        "needed are `messages`, or two like `prompt` and `completion`"
    )


def read_file(path: Path) -> list[Example]:
    """Prompts and answers of a JSON Lines file; raises UsageError that names the line that cannot be used."""
    return [pair(row, f"{path}, line {number}") for number, row in numbered_rows(path)]


def check_no_overlap(examples: Sequence[Example], tested: Iterable[str], source: str) -> None:
    """Raises UsageError where the text of a test item stands in a training item; `tested`: the test's questions.

    Texts are compared by their words, numbers and signs. One of fewer than six of these must be the whole prompt or
    answer.
    """
    whole, heads = set[_Words](), defaultdict[_Words, set[_Words]](set)
    for text in tested:
        words = _words(text)
        (heads[words[:_HEAD]] if len(words) >= _HEAD else whole).add(words)
    found = [
        example
        for example in examples
        if any(_holds(_words(text), whole, heads) for text in (example.prompt, example.answer))
    ]
    if found:
        raise UsageError(
            f"{len(found)} of {len(examples)} training items of {source} hold a test item, "
            f"such as {found[0].prompt[:80]!r}; take them out, or evaluate another task"
        )


def _words(text: str) -> _Words:
    return tuple(re.findall(r"\w+|[-+*/%=<>^]", text.lower()))


def _holds(words: _Words, whole: Set[_Words], heads: Mapping[_Words, Set[_Words]]) -> bool:
    if words and words in whole:
        return True
    starts = (words[i : i + _HEAD] for i in range(len(words) - _HEAD + 1))
    return any(words[i : i + len(item)] == item for i, start in enumerate(starts) for item in heads.get(start, ()))

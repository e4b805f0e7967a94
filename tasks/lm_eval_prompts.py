"""What lm-eval asks: an item of one of its tasks as text, and the worked examples (few-shot) before it."""

from __future__ import annotations

import copy
import re
from collections.abc import Callable, Sequence, Set
from typing import Any

from harness.core.errors import UsageError
from tasks.grading import Document

Shots = tuple[tuple[str, str], ...]
_SEED = 1234  # of the draw of worked examples in lm-eval's simple_evaluate
_WORD = re.compile(r"[^\W\d][\w-]*")  # of a template without braces
_ROLLING = "loglikelihood_rolling"  # scores a text, and asks nothing


def words(text: str) -> str:
    """Two texts that are equal here count as the same item: lower case, words and numbers of any script."""
    return " ".join(re.findall(r"\w+", text.lower())) or text


def item_text(task: Any, doc: Document, form: Any = None) -> str:
    """What tells an item from others: the prompt, with the choices or the scored text.

    Args:
        task: lm-eval's own.
        form: Its `fewshot_cfg`, for an item that is written as a worked example; None: as it is asked.
    """
    prompt, target = pair(task, doc, form)
    if task.OUTPUT_TYPE == "generate_until":
        return prompt
    return " ".join([prompt, *map(str, choices_of(task, doc, form) or [target])])


def pair(task: Any, doc: Document, form: Any = None) -> tuple[str, str]:
    """The bare prompt and the right answer, by the task's doc_to_text and doc_to_target; arguments as `item_text`."""
    choices = choices_of(task, doc, form)
    prompt = task.doc_to_text(doc, form and form.doc_to_text)
    target = task.doc_to_target(doc, form and form.doc_to_target)
    if isinstance(target, list):
        target = target[0] if target else ""
    return tuple(  # type: ignore[return-value]
        str(choices[part]) if choices and isinstance(part, int) else str(part) for part in (prompt, target)
    )


def choices_of(task: Any, doc: Document, form: Any = None) -> list[str] | None:
    """What an item can be answered with, None where that is any text; arguments as `item_text`."""
    how = (form or task.config).doc_to_choice
    return None if how is None else task.doc_to_choice(doc, how)


def check_columns(task: Any, name: str) -> None:
    """Checks that a template of one word names a column: lm-eval takes another word as the text of every item.

    Args:
        task: lm-eval's own.
        name: Of the task.

    Raises:
        UsageError: It names none, and is no choice that an item can be answered with.
    """
    columns = getattr(task, "features", ())
    if not columns or task.prompt is not None:  # a Python class, or a prompt of promptsource
        return
    for template in ("doc_to_text", "doc_to_target"):
        word = getattr(task.config, template)
        if not isinstance(word, str) or not _WORD.fullmatch(word) or word in columns:
            continue
        if template == "doc_to_text" or word not in (choices_of(task, task.eval_docs[0]) or ()):
            raise UsageError(
                f"{name}: {template} {word!r} is no column of its items ({', '.join(columns)}); name one of them, or "
                f"write {{{{{word!r}}}}} where the word itself is meant"
            )


def shot_count(task: Any) -> int:
    """How many worked examples stand before an item in the evaluation."""
    return 0 if task.OUTPUT_TYPE == _ROLLING else int(task.config.num_fewshot or 0)


def worked_examples(task: Any, known: Sequence[Document], tested: Set[str], chat: bool) -> Callable[[Document], Shots]:
    """Draws worked examples as lm-eval does: by the task's sampler, with the seed of its evaluations.

    Args:
        task: lm-eval's own.
        known: Items that are not evaluated, for where its own examples are.
        tested: `words` of the `item_text` of the test items, which are left out.
        chat: Whether they become turns of a chat; else their texts end in the task's delimiters.

    Returns:
        Item -> the turns of its worked examples, without the item itself: (role, text). Fewer than the evaluation has,
        where there are not as many other items.
    """
    count = shot_count(task)
    if not count:
        return lambda _: ()
    form = task.fewshot_cfg
    pool = [(words(item_text(task, doc, form)), doc) for doc in map(dict, task.fewshot_docs())]
    pool = [(text, doc) for text, doc in pool if text not in tested]
    if len(pool) < count:
        pool, form = [(words(item_text(task, doc)), doc) for doc in map(dict, known)], None
    sampler = copy.copy(task.sampler).set_rnd(_SEED)

    def draw(item: Document) -> Shots:
        own = words(item_text(task, item))
        others = [doc for text, doc in pool if text != own]
        drawn = sampler.replace_df(others).sample(min(count, len(others))) if others else []
        return tuple(message for doc in drawn for message in _messages(task, doc, form, chat))

    return draw


def _messages(task: Any, doc: Document, form: Any, chat: bool) -> Shots:
    """A worked example as lm-eval writes it."""
    how, (question, answer) = task.fewshot_cfg, pair(task, doc, form)
    messages = task.build_qa_turn(
        q=question,
        a=answer,
        gen_prefix=task.resolve_field(doc, how.gen_prefix),
        tgt_delim=how.target_delimiter,
        few_delim=how.fewshot_delimiter,
    )
    return tuple((message.role, message.content if chat else message.to_text()) for message in messages)

"""Articles out of the raw file, whatever its line ends and blank lines."""

from __future__ import annotations

import os

import pytest

from tasks.data import general_prompts
from tasks.wikitext.articles import articles
from tasks.wikitext.task import pages, process, text

RAW = (
    " \n = One = \n \n First line . \n Second line . \n \n = = Part = = \n \n Third , "
    "line . \n \n = Two ( a ) = \n \n Fourth . \n"
)


@pytest.mark.parametrize("written", [RAW, RAW.replace("\n", "\r\n\r\n"), RAW.replace(" \n \n", " \n\n\n\n")])
def test_an_article_goes_from_title_to_title(written: str) -> None:
    first, second = articles(written.splitlines())
    assert first == " = One = \n \n First line . \n Second line . \n \n = = Part = = \n \n Third , line . \n"
    assert second == " = Two ( a ) = \n \n Fourth . \n"
    assert text({"page": first}).startswith(" = One =") and "Third, line." in text({"page": first})
    assert process({"page": second}, [-12.0]) == {"bits_per_byte": (-12.0, len(second.encode()))}


@pytest.mark.skipif(
    "HARNESS_DATA_DIR" not in os.environ, reason="HARNESS_DATA_DIR is not set, WikiText-2 is not at hand"
)
def test_no_article_is_both_evaluated_and_a_distractor() -> None:
    evaluated = pages("test")
    assert len(evaluated) == 31 and evaluated[0].startswith(" = Robert Boulter = ")
    sources, examples = general_prompts(1600, 1)
    texts = [example.answer for example in examples if not example.prompt]
    assert len(sources) == 2 and len(texts) > 300
    assert not [t for t in texts if any(t in page for page in evaluated)]


@pytest.mark.usefixtures("data_folder")
def test_a_stand_in_file_is_shared_out() -> None:
    evaluated = pages("test")
    texts = [example.answer for example in general_prompts(20, 1)[1] if not example.prompt]
    assert len(evaluated) == 10 and texts and not [t for t in texts if any(t in page for page in evaluated)]

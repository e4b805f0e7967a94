"""Articles out of the raw file, whatever its line ends and blank lines."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from tasks.wikitext.task import articles, process, text

RAW = " \n = One = \n \n First line . \n Second line . \n \n = = Part = = \n \n Third , line . \n \n = Two ( a ) = \n \n Fourth . \n"


@pytest.mark.parametrize("written", [RAW, RAW.replace("\n", "\r\n\r\n"), RAW.replace(" \n \n", " \n\n\n\n")])
def test_an_article_goes_from_title_to_title(written: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HARNESS_DATA_DIR", str(tmp_path))
    (tmp_path / "wikitext2_test.txt").write_bytes(written.encode())
    first, second = articles("test")
    assert first == " = One = \n \n First line . \n Second line . \n \n = = Part = = \n \n Third , line . \n"
    assert second == " = Two ( a ) = \n \n Fourth . \n"
    assert text({"page": first}).startswith(" = One =") and "Third, line." in text({"page": first})
    assert process({"page": second}, [-12.0]) == {"bits_per_byte": (-12.0, len(second.encode()))}


@pytest.mark.skipif("HARNESS_DATA_DIR" not in os.environ, reason="HARNESS_DATA_DIR is not set, WikiText-2 is not at hand")
def test_the_test_split_has_its_62_articles() -> None:
    pages = articles("test")
    assert len(pages) == 62 and pages[0].startswith(" = Robert Boulter = ") and pages[-1].startswith(" = ")
    assert 1_250_000 < sum(len(page.encode()) for page in pages) < 1_300_000

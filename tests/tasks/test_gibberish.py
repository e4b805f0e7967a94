"""Gibberish: broken characters and salad are seen, languages, mathematics and translations are not."""

from __future__ import annotations

import sys
import unicodedata

import pytest

from tasks.gibberish import is_gibberish, script_of


@pytest.mark.parametrize(
    "text",
    [
        "\ufffd" * 3 + "the number is twelve",
        "the\x00 number\x01 is\x02 twelve apples",
        "half an emoji \ud83d\ud83d\ud83d in a text",
        "\ufffd\ufffd\ufffd\ufffd\ufffd\ufffd",
        "apples 苹果яблоко apples 苹果яблоко apples 苹果яблоко",
        "сад apple ספר ספר apple сад apple ספר " * 6,
        "сад, apple, ספר, ספר. apple; сад, apple, ספר, " * 10,
        "".join(map(chr, range(0xE000, 0xE040))),
        "\uf0b7\uf0fc\uf0a7\uf0d8" * 6,
        "\U000e1234\U000e2345\U000e3456\U000e4567 and so on",
    ],
)
def test_gibberish(text: str) -> None:
    assert is_gibberish(text)


NORMAL = {
    "Latin and Greek": "Die Antwort ist zwölf, naïve café, α + β ≤ 𝑥",
    "Japanese and Chinese": "答えは十二です。苹果十二个，还剩三个。カタカナ",
    "Russian": "Ответ: двенадцать (12 apples in total)",
    "one character": "\ufffd",
    "long vowels": "サーバーのユーザーが API で JSON を読みます。答えは 18 です。",
    "iteration mark": "人々は時々 Tokyo に行く。我々も少々。",
    "half-width kana": "ﾃﾞｰﾀを入力してください。USBを接続し、ＡＢＣを押す。",
    "hanja": "조선(朝鮮)은 大韓民國의 옛 이름이다. KBS는 漢字를 쓴다. LG는 TV를 만든다.",
    "letters of mathematics": "∀x∈ℝ ∃y∈ℝ: ℓ₁ ⊥ ℓ₂, ℜ(z) > 0 and ℵ₀ < 2^ℵ₀.",
    "translations": "Peace is мир in Russian, שלום in Hebrew, سلام in Arabic, 和平 in Chinese and แมว a cat.",
    "vocabulary": "| en | ru | he |\n" + "| bread | хлеб | לחם |\n| milk | молоко | חלב |\n" * 6,
    "list": "; ".join(["bread, хлеб, לחם", "milk, молоко, חלב", "sun, солнце, שמש", "moon, луна, ירח"] * 2),
    "paragraphs": "Мы пошли в магазин и купили хлеб.\nהלכנו לחנות וקנינו לחם.\nWe went and bought bread.",
    "bullets": "\uf0b7 first item\n\uf0b7 second item\n\uf0a7\tthird item\n\uf0fc last",
    "new emoji": "\U0001fadf\U0001fae9 and \U0001fadf\U0001fae9\U0001fadf",
    "colours": "\x1b[1;31merror\x1b[0m \x1b[32mok\x1b[0m \x1b]0;title\x07 \x1b[2K",
}


@pytest.mark.parametrize("text", NORMAL.values(), ids=NORMAL)
def test_text_of_people(text: str) -> None:
    assert not is_gibberish(text)


def test_scripts_are_those_of_unicode() -> None:
    """Against the Script property of another library; scripts that are written together are one."""
    regex = pytest.importorskip("regex")
    groups = {
        "CJK": r"[\p{Han}\p{Hiragana}\p{Katakana}\p{Hangul}\p{Bopomofo}]",
        "LATIN": r"[\p{Latin}\p{Greek}]",
        **{name: rf"\p{{{name}}}" for name in ("CYRILLIC", "HEBREW", "ARABIC", "THAI", "DEVANAGARI", "GEORGIAN")},
        None: r"[\p{Common}\p{Latin}\p{Greek}\p{Hiragana}\p{Han}]",  # rare forms are left out of their script
    }
    patterns = {name: regex.compile(pattern) for name, pattern in groups.items()}
    common, letters = regex.compile(r"\p{Common}"), 0
    for character in filter(str.isalpha, map(chr, range(min(0x30000, sys.maxunicode)))):
        script = script_of(character)
        if script in patterns and unicodedata.name(character, "") and not common.match(character):
            known = any(pattern.match(character) for name, pattern in patterns.items() if name)
            letters += script is not None
            assert patterns[script].match(character) if script or known else True, (character, script)
    assert letters > 100_000
    for character in "ℝℓℵℜℏ℘":
        assert script_of(character) is None

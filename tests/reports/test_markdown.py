"""Names, versions and commands of a foreign run.json are text in report.md and card.md: a Markdown parser finds the
same headings, links, images, code and tables as in those of a plain run.
"""

from __future__ import annotations

import json
from collections import Counter
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from markdown_it import MarkdownIt

from harness.core.text import code_span, markdown, one_line
from pruning.model_card import model_card
from reports.build import markdown as report
from reports.build import sections
from reports.model_card import render
from tests.support.runs import RUN, VARIANT

PARSER = MarkdownIt("commonmark").enable("table").enable("strikethrough")
COMMAND = "harness run --model x"
WAYS = (
    "evil\r\r# Injected heading\r\r~~~",
    "<img src=x onerror=alert(1)>",
    "[x](javascript:alert(1))",
    "![x](http://x/y.png)",
    "<http://x>",
    "[x]: http://y",
    "x\n\n<script>",
    "`code` ``` ~~~",
    "a | b \\| c \\",
    "x\n===\n",
    "# x #",
    "> quote",
    "- item",
    "1. item",
    "2) item",
    "***",
    "*a* **b** _c_ __d__ ~~e~~",
    "&lt;b&gt; &#60; &copy;",
    "\x0b\x0c\x85\u2028\u2029# x",
    "\u202eevil \x1b[31m \x9b",
    "---\ntitle: x\n---",
    "$x$",
    "    indented",
    "\tindented",
)
TEXT = st.one_of(
    st.text(max_size=20),
    st.lists(st.sampled_from([*WAYS, *"\r\n\t #*_~`[]()!<>&|\\-+=1.:"]), max_size=4).map("".join),
)


def run_of(model: str, name: str, device: str, version: str, command: str) -> dict[str, Any]:
    pruned = {**VARIANT, "name": name, "method": "random", "ratio_neurons": 0.2}
    run = {**RUN, "model": model, "hardware": {"device": device}, "versions": {version: version}, "command": command}
    change = {"variant": name, "baseline": "dense", "task": "mini_math", "n": 9, "metric": "exact_match"}
    figures = {"difference": 0.1, "ci_low": 0.0, "ci_high": 0.2, "lost": 1, "gained": 2, "mcnemar_p": 0.5}
    return {**run, "variants": [VARIANT, pruned], "comparisons": [{**change, **figures}]}


def texts(run: dict[str, Any]) -> tuple[str, str]:
    """report.md, and card.md without its front matter."""
    return report(run, sections(run), Path("r")), render(run).partition("\n---\n")[2]


def kinds(text: str) -> Counter[str]:
    """How often each kind of element was found, but for text."""
    found: Counter[str] = Counter()
    for block in PARSER.parse(text):
        found[f"{block.type} {block.tag}"] += 1
        found.update(inline.type for inline in block.children or ())
    for plain in ("inline ", "text", "softbreak", "text_special"):
        del found[plain]
    return found


PLAIN = [kinds(text) for text in texts(run_of("m", "p", "cpu", "torch", COMMAND))]


@pytest.mark.slow
@settings(max_examples=60, deadline=None)
@given(TEXT, TEXT, TEXT, TEXT, TEXT)
def test_any_text_leaves_the_document_as_it_is(model: str, name: str, device: str, version: str, command: str) -> None:
    made = texts(run_of(f"m{model}", f"p{name}", device, version, f"harness {command}"))
    assert [kinds(text) for text in made] == PLAIN


@pytest.mark.parametrize("way", WAYS)
def test_each_way_in_is_closed(way: str) -> None:
    assert [kinds(text) for text in texts(run_of(way, way, way, way, way))] == PLAIN


@given(TEXT)
def test_a_line_is_one_paragraph_of_that_text(text: str) -> None:
    """Read back, it is the text: nothing is lost to markup."""
    blocks = PARSER.parse(markdown(f"{text}."))
    assert [block.type for block in blocks] == ["paragraph_open", "inline", "paragraph_close"]
    (inline,) = [block for block in blocks if block.children]
    assert {child.type for child in inline.children or ()} == {"text"}
    seen = "".join(child.content for child in inline.children or ())
    assert seen == one_line(f"{text}.").strip()


@pytest.mark.parametrize("text", ["http://evil.example/x", "https://x.y", "www.evil.example", "me@evil.example"])
def test_an_address_is_nothing_to_click(text: str) -> None:
    """GitHub and the Hub make links of bare addresses; a backslash in the middle ends that."""
    assert text not in markdown(f"see {text}")
    (inline,) = [block for block in PARSER.parse(markdown(f"see {text}")) if block.children]
    assert "".join(child.content for child in inline.children or ()) == f"see {text}"


def test_ordinary_names_stay_readable() -> None:
    for name in ("selective-S-0.2", "mini_math", "pass@1", "-5.0", "+1.2 (x1.020 to x1.030)", "95.2 %", "a & b"):
        assert markdown(name) == name


def test_the_command_to_serve_names_nothing_outside_of_the_run(tmp_path: Path) -> None:
    run = run_of("m", "p", "cpu", "torch", COMMAND)
    for checkpoint, shown in (("checkpoint", True), ("../other", False), ("/etc", False)):
        run["variants"][1]["checkpoint"] = checkpoint
        (tmp_path / "run.json").write_text(json.dumps(run))
        assert (f"vllm serve {tmp_path}/{checkpoint}" in report(run, [], tmp_path)) == shown


@given(TEXT)
def test_a_name_as_code_is_one_span_of_that_name(text: str) -> None:
    (inline,) = [block for block in PARSER.parse(f"Made from {code_span(f'm{text}')} here") if block.children]
    assert [child.type for child in inline.children or ()] == ["text", "code_inline", "text"]
    (_, code, _) = inline.children or ()
    assert code.content == one_line(f"m{text}").strip()


STEP = {
    "method": "selective",
    "metric": "smd",
    "tokens": "all",
    "allocation": "uniform",
    "compensated": False,
    "intermediate_size": 100,
    "widths": [80],
    "sequential": False,
    "general_weight": 0.0,
}
RECORD = {"model_kind": "hub", "dense_intermediate_size": 100}
HOSTILE = ("method", "metric", "tokens", "allocation")  # the record may be a foreign one


@pytest.mark.parametrize("way", WAYS)
def test_the_card_of_a_checkpoint_names_its_model_as_text(way: str, tmp_path: Path) -> None:
    plain, made = (
        model_card({**RECORD, "model": f"m{name}".replace("/", ""), "steps": [step]}, [80], tmp_path)
        for name, step in (("", STEP), (way, {**STEP, **dict.fromkeys(HOSTILE, f"m{way}")}))
    )
    assert kinds(made.partition("\n---\n")[2]) == kinds(plain.partition("\n---\n")[2])

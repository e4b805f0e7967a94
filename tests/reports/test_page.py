"""The report in a real Chromium: it draws, it filters, it is quiet, and what a model wrote is text."""

from __future__ import annotations

import json
import re
import shutil
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from harness.core.run_file import read_run
from reports.build import write_reports
from reports.figures import measured, percent
from tests.support.runs import EXAMPLE, HOSTILE, answer, write_samples

SEEN = "[...document.querySelectorAll('#answers .row')].length"


@pytest.fixture(scope="module")
def page_file(sweep_folder: Path) -> Path:
    return write_reports(sweep_folder, ("html",))["html"]


@pytest.fixture
def opened(chromium: Any, page_file: Path, request: pytest.FixtureRequest) -> Iterator[tuple[Any, list[str]]]:
    """The page, and what it has said or asked for: messages, errors, dialogs and requests that are not for the file
    itself.
    """
    context = chromium.new_context(**{"viewport": {"width": 1280, "height": 900}, **getattr(request, "param", {})})
    page, heard = context.new_page(), []
    page.on("console", lambda message: heard.append(f"{message.type}: {message.text}"))
    page.on("pageerror", lambda error: heard.append(f"error: {error}"))
    page.on("dialog", lambda dialog: (heard.append(f"dialog: {dialog.message}"), dialog.dismiss()))
    page.on("request", lambda asked: heard.append(asked.url) if not asked.url.startswith(("file:", "data:")) else None)
    page.goto(page_file.as_uri())
    page.wait_for_selector("#samples[data-ready]", state="attached")
    page.select_option("#flip", "")
    yield page, heard
    context.close()


def draw_all(page: Any) -> None:
    for holder in page.query_selector_all("[data-chart]"):
        holder.scroll_into_view_if_needed()
    page.wait_for_selector("[data-chart]:not([data-drawn])", state="detached")


def unfold(page: Any) -> None:
    page.evaluate("document.querySelectorAll('details').forEach((d) => { d.open = true; })")


def found(page: Any) -> str:
    return str(page.inner_text("#found"))


PHONE, DESK = {"width": 390, "height": 844}, {"width": 1400, "height": 900}


def test_every_chart_is_drawn_and_nothing_is_said(opened: tuple[Any, list[str]]) -> None:
    page, heard = opened
    draw_all(page)
    marks = page.evaluate(
        "[...document.querySelectorAll('[data-chart]')].map((h) => h.querySelectorAll('.role-mark path').length)"
    )
    assert len(marks) >= 12 and all(marks)
    assert heard == []


def test_the_figures_are_those_of_run_json(opened: tuple[Any, list[str]], sweep_folder: Path) -> None:
    page, run = opened[0], read_run(sweep_folder)
    script = """(title) => [...document.querySelectorAll('.table')]
        .filter((t) => t.querySelector('.scroll').ariaLabel === title)
        .flatMap((t) => [...t.querySelectorAll('tbody tr')])
        .map((r) => [...r.cells].map((c) => c.textContent.replaceAll('\u00a0', ' ')))"""
    points = {(row[0], row[1], row[3]): row[5] for row in page.evaluate(script, "Every point") if row[0] != "dense"}
    expected = {
        (p["arm"], percent(p["ratio_requested"]), p["task"]): measured(p["metric"], p["value"])
        for p in run["sweep"]["points"]
    }
    assert points == expected and len(points) == 96
    verdicts = {row[0]: row[1] for row in page.evaluate(script, "The claims")}
    assert verdicts == {c["claim"]: c["verdict"] for c in run["claims"]}
    (rows,) = json.loads(page.evaluate("document.getElementById('specs').textContent"))["accuracy-0"][
        "datasets"
    ].values()
    target = {
        (p["arm"], 100 * p["ratio_neurons"]): 100 * p["value"]
        for p in run["sweep"]["points"]
        if p["task"] == run["task"]
    }
    assert {(row["arm"], row["removed"]): row["value"] for row in rows if row["removed"]} == target


def test_filters_count_what_is_there(opened: tuple[Any, list[str]], sweep_folder: Path) -> None:
    page, heard = opened
    page.select_option("#variant", "random-0.5-seed7")
    lines = (sweep_folder / "samples/random-0.5-seed7/mini_math.jsonl").read_text(encoding="utf-8").splitlines()
    loops = sum("loop" in json.loads(line)["failures"] for line in lines)
    assert "of 200 answers" in found(page) and page.evaluate(SEEN) == 25
    page.select_option("#kind", label="loop")
    assert 25 < loops < 200 and f"of {loops} answers" in found(page)
    page.click("#next")
    assert found(page).startswith("26 to 50 of")
    page.select_option("#kind", "")
    page.select_option("#flip", "lost")
    assert f"of {loops} answers" in found(page)  # dense is right everywhere here
    page.select_option("#flip", "gained")
    assert found(page).startswith("0 answers")
    page.select_option("#flip", "")
    page.fill("#search", "First 123+1")
    assert found(page).startswith("1 to 1 of 1 answers")
    assert heard == []


def test_an_answer_opens_beside_the_dense_one_with_its_loop_marked(opened: tuple[Any, list[str]]) -> None:
    page, _ = opened
    page.select_option("#variant", "random-0.5-seed7")
    page.select_option("#kind", label="loop")
    page.click("#answers .row >> nth=0")
    titles = [box.inner_text() for box in page.query_selector_all(".detail h4")]
    assert (
        titles[0] == "prompt"
        and titles[1].startswith("dense: right")
        and titles[2].startswith("random-0.5-seed7: wrong, loop")
    )
    assert page.inner_text("mark").strip().startswith("again and again,") and len(page.query_selector_all("mark")) == 1
    page.click("#answers .row >> nth=0")
    assert page.query_selector(".detail") is None


def test_answers_open_at_what_the_recommended_variant_got_wrong(
    chromium: Any, sweep_folder: Path, tmp_path: Path
) -> None:
    """With the right answer, and marked where the pruned model's differs from it and from the dense model's."""
    folder = tmp_path / "run"
    shutil.copytree(sweep_folder, folder)
    files = {v["name"]: v["eval"]["mini_math"]["samples"] for v in read_run(folder)["variants"]}
    for name, said in (("dense", "8"), ("selective-best-0.5", "18<b>")):
        row = {**answer(3, f"Then 5+3={said}. #### {said}", said == "8", []), "prediction": said, "gold": "8"}
        (folder / files[name]).write_text(json.dumps(row), encoding="utf-8")
    page = chromium.new_page()
    page.goto(write_reports(folder, ("html",))["html"].as_uri())
    page.wait_for_selector("#samples[data-ready]", state="attached")
    assert (page.input_value("#variant"), page.input_value("#flip")) == ("selective-best-0.5", "lost")
    page.click("#answers .row >> nth=0")
    assert page.inner_text(".detail .gold") == "8"
    assert page.locator(".pair p").all_inner_texts() == ["read as 8", "read as 18<b>"]
    assert page.locator(".differs").all_inner_texts() == ["18<b>. #### 18<b>", "18<b>"]
    page.close()


def test_a_click_on_a_failure_kind_shows_such_answers(opened: tuple[Any, list[str]]) -> None:
    page, _ = opened
    holder = page.query_selector("[data-picks] >> nth=2")  # random
    holder.scroll_into_view_if_needed()
    page.wait_for_selector("[data-picks]:not([data-drawn]) >> nth=3", state="detached")
    box = page.query_selector("[data-picks] >> nth=2").query_selector(".role-mark path[fill='#c8485b']").bounding_box()
    page.mouse.click(box["x"] + box["width"] - 3, box["y"] + box["height"] / 3)
    assert page.evaluate("document.getElementById('kind').selectedOptions[0].textContent") == "loop"
    assert page.input_value("#variant") == "random-0.5-seed33"


def test_hostile_answers_are_text(opened: tuple[Any, list[str]]) -> None:
    page, heard = opened
    page.select_option("#variant", "selective-S-0.3")
    page.select_option("#kind", label="gibberish")
    assert f"of {len(HOSTILE)} answers" in found(page)
    for i in range(len(HOSTILE)):
        page.click(f"#answers .row >> nth={i}")
    shown = [block.inner_text() for block in page.query_selector_all(".pair > div:nth-child(2) pre")]
    for i in (0, 1, 2, 3, 6, 8):
        assert shown[i] == HOSTILE[i]
    assert (
        shown[4] == "abcU+202Egnp.exe U+2066innerU+2069 U+200F"
        and shown[5] == "nul U+0000 bell U+0007 escape U+001B[31m"
    )
    assert "996,000 characters omitted" in shown[7] and len(shown[7]) < 5000
    assert (
        page.evaluate("window.pwned") is None
        and page.query_selector("#samples script, #samples img, #samples svg") is None
    )
    assert heard == []


def test_the_policy_stops_a_script_that_got_in(opened: tuple[Any, list[str]]) -> None:
    page, heard = opened
    page.evaluate(
        "document.body.insertAdjacentHTML('beforeend', '<img src=data: onerror=\"window.pwned = 1\"><a href=x>')"
    )
    deadline = time.monotonic() + 5
    while not any("Content Security Policy" in line for line in heard) and time.monotonic() < deadline:
        page.wait_for_timeout(50)
    assert page.evaluate("window.pwned") is None and any("Content Security Policy" in line for line in heard)


@pytest.mark.parametrize(
    "opened",
    [
        {"color_scheme": "dark", "viewport": PHONE},
        {"color_scheme": "light", "viewport": DESK},
        pytest.param({"color_scheme": "light", "viewport": PHONE}, marks=pytest.mark.thorough),
        pytest.param({"color_scheme": "dark", "viewport": DESK}, marks=pytest.mark.thorough),
    ],
    indirect=True,
)
@pytest.mark.long
def test_axe_finds_nothing_serious(opened: tuple[Any, list[str]]) -> None:
    axe = pytest.importorskip("axe_playwright_python.sync_playwright").Axe()
    page, _ = opened
    draw_all(page)
    page.click("#answers .row >> nth=0")
    unfold(page)
    violations = axe.run(page).response["violations"]
    serious = [
        f"{v['id']}: {v['nodes'][0]['html'][:200]}" for v in violations if v["impact"] in ("serious", "critical")
    ]
    assert serious == []


def test_a_phone_needs_no_sideways_scrolling(opened: tuple[Any, list[str]]) -> None:
    page, _ = opened
    page.set_viewport_size({"width": 360, "height": 740})
    draw_all(page)
    assert page.evaluate("document.documentElement.scrollWidth") <= 360


@pytest.mark.parametrize("opened", [{"color_scheme": "dark"}], indirect=True)
def test_in_print_a_dark_page_is_dark_on_white(opened: tuple[Any, list[str]]) -> None:
    page, _ = opened
    draw_all(page)
    page.emulate_media(media="print", color_scheme="dark")
    found = page.evaluate("""[...document.querySelectorAll('.chart svg text, h2, td')].map((e) => getComputedStyle(e))
        .map((s) => s.getPropertyValue('fill') === 'rgb(0, 0, 0)' ? s.color : s.fill)""")
    assert set(found) <= {"rgb(34, 34, 34)", "rgb(0, 0, 0)"}


def test_a_click_on_another_tasks_bar_shows_that_task(chromium: Any, tmp_path: Path) -> None:
    """Of a single run, every task has a panel of its own."""
    run = json.loads(EXAMPLE.read_text(encoding="utf-8"))
    run |= {"sweep": None, "claims": [], "recoveries": [], "variants": run["variants"][:2]}
    write_samples(tmp_path, run, 30)
    (tmp_path / "run.json").write_text(json.dumps(run))
    page = chromium.new_page()
    page.goto(write_reports(tmp_path, ("html",))["html"].as_uri())
    page.wait_for_selector("#samples[data-ready]", state="attached")
    unfold(page)
    draw_all(page)
    bar = page.locator("[data-picks]").nth(1).locator(".role-mark path").first
    bar.scroll_into_view_if_needed()
    bar.click()
    assert (page.input_value("#task"), page.input_value("#variant")) == ("mini_facts", "dense")
    page.close()


def test_the_deciding_table_needs_no_sideways_scrolling_on_a_phone(opened: tuple[Any, list[str]]) -> None:
    page, _ = opened
    page.set_viewport_size({"width": 390, "height": 844})
    cells = page.evaluate("""[...document.querySelectorAll('#trade-off td, #claims td')].map((c) => {
        const box = c.getBoundingClientRect(); return [box.left, box.right]; })""")
    assert len(cells) > 100 and min(left for left, _ in cells) >= 0 and max(right for _, right in cells) <= 390
    labels = page.evaluate("[...document.querySelectorAll('#trade-off .chosen td')].map((c) => c.dataset.label)")
    assert labels == page.evaluate("[...document.querySelectorAll('#trade-off th')].map((h) => h.textContent)")


def test_no_text_of_a_chart_is_smaller_than_12_px_and_no_chart_has_a_legend_of_its_own(
    opened: tuple[Any, list[str]],
) -> None:
    page, _ = opened
    draw_all(page)
    sizes = page.evaluate("""[...document.querySelectorAll('.chart svg')].flatMap((svg) => {
        const scale = svg.getBoundingClientRect().width / svg.viewBox.baseVal.width;
        return [...svg.querySelectorAll('text')].map((t) => scale * parseFloat(getComputedStyle(t).fontSize)); })""")
    assert len(sizes) > 100 and min(sizes) >= 11.95
    assert page.locator(".chart .role-legend-symbol").count() == 0
    names = page.evaluate("[...document.querySelectorAll('.bar .legend button')].map((b) => b.dataset.name)")
    assert names == ["selective-S", "selective-best", "random", "reverse-S"]
    assert page.locator(f".legend [data-name='{names[0]}']").count() == 1


def test_a_click_on_the_legend_highlights_in_every_chart_and_navigation_stays(opened: tuple[Any, list[str]]) -> None:
    page, heard = opened
    draw_all(page)
    page.evaluate("document.getElementById('claims').scrollIntoView()")
    page.click(".bar [data-name=random]")
    assert page.get_attribute(".bar [data-name=random]", "aria-pressed") == "true"
    assert page.locator("nav").bounding_box()["y"] < 40
    marks = "[...c.querySelectorAll('.mark-line path, .mark-symbol path')]"
    faint = f"""[...document.querySelectorAll('#accuracy .chart, #trade-off .chart')].map(
        (c) => {marks}.some((p) => p.getAttribute('opacity') < 0.2))"""
    wait_until(page, f"({faint}).every(Boolean)")
    areas = "[...document.querySelectorAll('[data-picks] .mark-area path')]"
    assert page.evaluate(f"{areas}.every((p) => Number(p.getAttribute('opacity') ?? 1) === 1)")  # of another legend
    page.click(".bar [data-name=random]")
    wait_until(page, f"!({faint}).some(Boolean)")
    page.click("#failures [data-name=loop]")
    wait_until(page, f"{areas}.some((p) => Number(p.getAttribute('opacity')) === 0.2)")
    assert heard == []


def wait_until(page: Any, condition: str) -> None:
    """Asks again and again; `wait_for_function` does so by eval, which the page's own policy forbids."""
    for _ in range(100):
        if page.evaluate(condition):
            return
        page.wait_for_timeout(50)
    raise AssertionError(condition)


def test_a_command_is_copied(chromium: Any, page_file: Path) -> None:
    context = chromium.new_context(permissions=["clipboard-read", "clipboard-write"])
    page = context.new_page()
    page.goto(page_file.as_uri())
    page.click("[data-copy] >> nth=0")
    wait_until(page, "document.querySelector('[data-copy]').textContent === 'copied'")
    command = page.inner_text(".command pre >> nth=0")
    assert page.evaluate("navigator.clipboard.readText()") == command and command.startswith("harness ")
    context.close()


def test_the_page_links_to_the_paper(opened: tuple[Any, list[str]]) -> None:
    assert opened[0].locator("a[href='https://arxiv.org/abs/2604.27115']").count() == 1


def test_it_prints_on_few_pages(opened: tuple[Any, list[str]]) -> None:
    page, _ = opened
    draw_all(page)
    assert len(re.findall(rb"/Type\s*/Page\b", page.pdf(prefer_css_page_size=True))) <= 8


def test_a_single_runs_page_is_verdict_summary_and_answers(chromium: Any, tmp_path: Path) -> None:
    run = json.loads(EXAMPLE.read_text(encoding="utf-8"))
    run |= {"sweep": None, "claims": [], "recoveries": [], "variants": run["variants"][:2]}
    write_samples(tmp_path, run, 30)
    (tmp_path / "run.json").write_text(json.dumps(run))
    page = chromium.new_page()
    page.goto(write_reports(tmp_path, ("html",))["html"].as_uri())
    shown = page.evaluate("[...document.querySelectorAll('h2')].filter((h) => !h.closest('summary')).map((h) => h.id)")
    assert shown == ["summary-title", "samples-title"] and not page.is_visible("#accuracy table")
    assert page.inner_text("main").count("-0.2 (-1.5 to +0.8)") == 1
    page.click("nav a[href='#accuracy']")
    page.wait_for_selector("#accuracy table >> nth=0", state="visible")
    page.wait_for_selector("#accuracy [data-chart]:not([data-drawn])", state="detached")
    page.close()


def test_it_prints(opened: tuple[Any, list[str]]) -> None:
    """Also the charts that nobody has scrolled to."""
    page, heard = opened
    page.wait_for_selector("[data-chart]:not([data-drawn])", state="detached")
    assert page.evaluate("window.scrollY") == 0 and len(page.pdf()) > 50_000 and heard == []


def test_without_scripts_every_figure_is_still_there(chromium: Any, page_file: Path) -> None:
    context = chromium.new_context(java_script_enabled=False)
    page = context.new_page()
    page.goto(page_file.as_uri())
    claims = page.inner_text("#claims").replace("\u00a0", " ")
    assert "28.0 % (23.5 % to 29.5 %)" in claims and page.locator("tbody tr").count() > 300
    context.close()

"""The pictures of the documentation, taken of a report in Chromium: `python scripts/screenshots.py RUN/report.html`.

docs/report.png: its beginning; docs/report-failures.png: how answers fail, dark; docs/report-answers.png: an answer
beside the dense one.
"""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import click

DOCS = Path(__file__).resolve().parent.parent / "docs"
WIDTH = 1180


def settled(page: Any) -> None:
    """Every chart drawn."""
    for holder in page.query_selector_all("[data-chart]"):
        holder.scroll_into_view_if_needed()
    page.wait_for_selector("[data-chart]:not([data-drawn])", state="detached")
    page.evaluate("window.scrollTo(0, 0)")


def shoot(browser: Any, url: str, scheme: str, name: str, selector: str | None, height: int) -> None:
    page = browser.new_page(viewport={"width": WIDTH, "height": height}, color_scheme=scheme, reduced_motion="reduce")
    page.goto(url)
    page.wait_for_selector("#samples[data-ready]", state="attached")
    settled(page)
    if selector == "#samples":
        page.select_option("#variant", "random-0.3-seed33")
        page.select_option("#flip", "")
        page.select_option("#kind", label="truncated")
        page.click("#answers .row >> nth=0")
    if selector:
        page.evaluate("(s) => document.querySelector(s).scrollIntoView()", selector)
    page.screenshot(path=DOCS / f"{name}.png")
    page.close()


@click.command(help=__doc__)
@click.argument("report", type=click.Path(exists=True, path_type=Path))
def main(report: Path) -> None:
    from playwright.sync_api import sync_playwright

    url = report.resolve().as_uri()
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=shutil.which("chromium"), args=["--no-sandbox"])
        shoot(browser, url, "light", "report", None, 1750)
        shoot(browser, url, "dark", "report-failures", "#failures", 900)
        shoot(browser, url, "light", "report-answers", "#samples", 760)
        browser.close()


if __name__ == "__main__":
    main()

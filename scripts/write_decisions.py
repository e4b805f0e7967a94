"""docs/adr/README.md, the list of decisions, from their titles: `python -m scripts.write_decisions`."""

from __future__ import annotations

from pathlib import Path

ADR = Path(__file__).resolve().parent.parent / "docs" / "adr"
PAGE = ADR / "README.md"
HEAD = "# Decisions\n\nWhat was decided and why, in the order of time. Written by `make generate`; do not edit.\n\n"


def text() -> str:
    pages = sorted(page for page in ADR.glob("*.md") if page != PAGE)
    titles = ((page.name, page.read_text(encoding="utf-8").splitlines()[0].removeprefix("# ")) for page in pages)
    return HEAD + "".join(f"- [{title}]({name})\n" for name, title in titles)


if __name__ == "__main__":
    PAGE.write_text(text(), encoding="utf-8")

"""What MkDocs calls while it builds the site: files outside docs/ that its pages link to become part of it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parent.parent
OUTSIDE = (
    "CONTRIBUTING.md",
    "CHANGELOG.md",
    "CITATION.cff",
    "examples/*.ipynb",
    "harness/*.schema.json",
    "harness/embedded/*/README.md",
    "reports/example/*/report.*",
)


def on_files(files: Any, config: Any) -> Any:
    from mkdocs.structure.files import File

    for pattern in OUTSIDE:
        for path in sorted(ROOT.glob(pattern)):
            files.append(File.generated(config, path.relative_to(ROOT).as_posix(), abs_src_path=str(path)))
    return files


def on_page_markdown(markdown: str, page: Any, **_: Any) -> str:
    """Links by their place in the repository become links by their place in the site; the README is its first page."""
    name = page.file.src_uri
    if name == "README.md":
        markdown = (ROOT / "README.md").read_text(encoding="utf-8") + "\n#" + markdown
    if name in ("README.md", "CONTRIBUTING.md", "CHANGELOG.md"):
        return markdown.replace("](docs/", "](")
    return markdown if "/" in name else markdown.replace("](../", "](")

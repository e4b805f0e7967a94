"""The Dockerfiles name versions and files that the project has. They are not built here."""

from __future__ import annotations

import re
import tomllib
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
(VLLM,) = PROJECT["optional-dependencies"]["cuda"]
IMAGE = f"vllm/vllm-openai:v{VLLM.partition('==')[2]}"
FILES = sorted((ROOT / "container").glob("Dockerfile.*"))


def instructions(file: Path) -> list[tuple[str, str]]:
    """(instruction, arguments) of a Dockerfile, continued lines as one."""
    text = file.read_text(encoding="utf-8").replace("\\\n", " ")
    lines = [line for line in text.splitlines() if line and not line.startswith("#")]
    return [(word, rest) for word, _, rest in (line.partition(" ") for line in lines)]


def copied(file: Path) -> set[str]:
    return {name for word, rest in instructions(file) if word == "COPY" for name in rest.split()[:-1]}


@pytest.mark.parametrize("file", FILES, ids=lambda file: file.name)
def test_what_it_copies_is_there_and_all_that_the_wheel_needs(file: Path) -> None:
    assert not [name for name in copied(file) if not (ROOT / name).exists()]
    build = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["tool"]["hatch"]["build"]
    needed = {*build["targets"]["wheel"]["packages"], "pyproject.toml", PROJECT["readme"], *PROJECT["license-files"]}
    assert needed <= copied(file)


@pytest.mark.parametrize("file", FILES, ids=lambda file: file.name)
def test_it_says_that_it_was_not_built_and_names_only_extras_and_scripts_that_exist(file: Path) -> None:
    text = file.read_text(encoding="utf-8")
    assert text.startswith("# Not built where it was written")
    extras = {name for found in re.findall(r"\.\[([a-z0-9,]+)\]", text) for name in found.split(",")}
    assert extras <= PROJECT["optional-dependencies"].keys()
    for name in re.findall(r"(?:scripts|requirements)[\w./-]*\.(?:py|lock)", text):
        assert name in copied(file) or Path(name).parts[0] in copied(file)


def test_the_image_is_of_the_vllm_that_the_project_asks_for() -> None:
    cuda = dict(instructions(ROOT / "container" / "Dockerfile.cuda"))
    assert cuda["FROM"] == IMAGE
    assert "ENTRYPOINT" not in cuda  # the image's own, vllm serve
    page = (ROOT / "docs" / "container.md").read_text(encoding="utf-8")
    assert set(re.findall(r"vllm/vllm-openai:\S+", page)) == {IMAGE}


def test_the_pages_lines_publish_on_this_machine_only() -> None:
    page = (ROOT / "docs" / "container.md").read_text(encoding="utf-8")
    lines = [line for line in page.splitlines() if line.startswith("    docker run") and " -p " in line]
    assert lines and all("-p 127.0.0.1:8000:8000 " in line for line in lines)
    assert set(re.findall(r"-f (\S+)", page)) == {f"container/{file.name}" for file in FILES}


def test_the_cuda_image_is_held_to_the_locks_versions() -> None:
    """The sed line of the Dockerfile, as sed reads it: each pin without its hashes and its local version."""
    (line,) = (rest for word, rest in instructions(ROOT / "container" / "Dockerfile.cuda") if word == "RUN")
    pattern = re.search(r"s/\^\\\((.*?)\\\)\.\*/\\1/p", line)
    assert pattern is not None
    lock = (ROOT / "requirements.lock").read_text(encoding="utf-8")
    found = [match[1] for text in lock.splitlines() if (match := re.match(f"({pattern[1]})", text))]
    assert "torch==2.13.0" in found and len(found) == len(re.findall(r"^[a-z0-9-]+==", lock, re.MULTILINE))

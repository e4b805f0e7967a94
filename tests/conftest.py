"""What every test has: a folder of its own, an environment without traces of this machine, a tier; and models to
work on.
"""

from __future__ import annotations

import json
import os
import re
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import hypothesis
import pytest

from tests.support.isolation import isolate, remove
from tests.support.models import build_model

HOME = isolate()

TIERS: dict[str, Callable[[set[str]], bool]] = {  # tier: whether a test with these marks belongs to it
    "quick": lambda marks: not marks & {"slow", "long", "thorough"},
    "default": lambda marks: not marks & {"long", "thorough"},
    "long": lambda marks: "long" in marks and "thorough" not in marks,
    "all": lambda _: True,
}
SLOW_FIXTURES = {"shared_engine", "chromium", "random_model", "embedded_scores", "tokenizer"}
_SLOW_THROUGHOUT = re.compile(r"^pytestmark = .*\bmark\.slow\b", re.MULTILINE)

hypothesis.settings.register_profile(
    "tests", deadline=None, database=None, derandomize="CI" in os.environ, print_blob=True
)
hypothesis.settings.load_profile("tests")
hypothesis.settings.register_profile("quick", hypothesis.settings.get_profile("tests"), max_examples=25)


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption(
        "--tier",
        choices=list(TIERS),
        default="default",
        help="quick: nothing that starts an engine, a browser or another process; default: that too; long: what "
        "CI runs besides; all: everything, also second ways to the same ground",
    )


def pytest_configure(config: pytest.Config) -> None:
    """Fewer examples of each property while working; `make test` draws them all."""
    if config.getoption("tier") == "quick":
        hypothesis.settings.load_profile("quick")


def pytest_ignore_collect(collection_path: Path, config: pytest.Config) -> bool | None:
    """In the quick tier, a module that is slow throughout is not even imported."""
    if config.getoption("tier") != "quick" or collection_path.suffix != ".py":
        return None
    return True if _SLOW_THROUGHOUT.search(collection_path.read_text(encoding="utf-8")) else None


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Leaves out what the tier does; slow files first, so that the workers end together."""
    for item in items:
        if set(getattr(item, "fixturenames", ())) & SLOW_FIXTURES:
            item.add_marker("slow")
    belongs = TIERS[config.getoption("tier")]
    parts: dict[bool, list[pytest.Item]] = {True: [], False: []}
    for item in items:
        parts[belongs({mark.name for mark in item.iter_markers()})].append(item)
    config.hook.pytest_deselected(items=parts[False])
    slow = {item.path for item in parts[True] if item.get_closest_marker("slow")}
    items[:] = sorted(parts[True], key=lambda item: item.path not in slow)


def pytest_unconfigure() -> None:
    remove(HOME)


@pytest.fixture(scope="session", autouse=True)
def _session_folder(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """Where fixtures of a session or module work."""
    before = Path.cwd()
    os.chdir(tmp_path_factory.mktemp("session"))
    yield
    os.chdir(before)


@pytest.fixture(autouse=True)
def _own_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Every test works in a folder of its own, and what it does to the environment ends with it."""
    monkeypatch.chdir(tmp_path)
    before = dict(os.environ)
    yield
    for name in os.environ.keys() - before.keys():
        del os.environ[name]
    os.environ.update(before)


@pytest.fixture(scope="session")
def shared_engine() -> Iterator[Callable[[], Any]]:
    """For fixtures of a session or module: a function that gives `tiny_engine`."""
    from tests.support.engines import SharedEngine

    shared = SharedEngine()
    yield shared
    shared.close()


@pytest.fixture()
def tiny_engine(shared_engine: Callable[[], Any]) -> Any:
    """vLLM on the embedded model, for tests that only need some engine."""
    return shared_engine()


@pytest.fixture(scope="session")
def random_model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A random qwen2 model in several shards."""
    return build_model("qwen2", tmp_path_factory.mktemp("models") / "qwen2", shard_size="200KB")


@pytest.fixture()
def edited_config(random_model: Path, tmp_path: Path) -> Any:
    """A function that copies the model's config with some values changed, for models that must be refused."""

    def edit(**changes: Any) -> Path:
        config = json.loads((random_model / "config.json").read_text())
        (tmp_path / "config.json").write_text(json.dumps({**config, **changes}))
        return tmp_path

    return edit


@pytest.fixture()
def make_job(tmp_path: Path, random_model: Path) -> Callable[..., Any]:
    """A function that makes a job in a folder of its own; keyword arguments change the recipe."""

    def make(name: str = "job", model: Path = random_model, teacher: Path | None = None, **changes: Any) -> Any:
        from recovery.trainer import Job
        from tests.support.training import RECIPE, rows

        data = tmp_path / "data"
        data.mkdir(exist_ok=True)
        (data / "train.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows()))
        return Job(folder=tmp_path / name, model=model, data=data, recipe=replace(RECIPE, **changes), teacher=teacher)

    return make


@pytest.fixture()
def ragged_model(random_model: Path, tmp_path: Path) -> Path:
    """The random model pruned to non-uniform widths."""
    from pruning.checkpoint import open_model
    from pruning.export import export
    from tests.support.pruned import ragged_plan

    export(open_model(random_model), ragged_plan(random_model), tmp_path / "ragged")
    return tmp_path / "ragged"

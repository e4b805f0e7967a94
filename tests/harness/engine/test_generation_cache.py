from __future__ import annotations

import os
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from harness.engine.generation_cache import GenerationCache, key_of
from tasks.generation import Generation


def test_generations_come_back_with_what_is_known_of_them(tmp_path: Path) -> None:
    with GenerationCache(tmp_path / "j", "weights") as generation_cache:
        generation_cache.add("a", Generation("line\nbreak \u2028 é", {"finish_reason": "length", "n_tokens": 3}))
        assert generation_cache.get("b") is None
    with GenerationCache(tmp_path / "j", "weights") as again:
        assert again.get("a") == "line\nbreak \u2028 é" and again.get("a").meta == {
            "finish_reason": "length",
            "n_tokens": 3,
        }
        again.add("b", Generation("2", {}))
    with GenerationCache(tmp_path / "j", "weights") as third:
        assert third.get("a") is not None and third.get("b") == "2"
    with GenerationCache(tmp_path / "j", "other weights") as other:
        assert other.get("a") is None


@given(cut=st.integers(0, 400))
def test_a_file_cut_anywhere_gives_a_part_of_the_truth(cut: int, tmp_path_factory) -> None:  # type: ignore[no-untyped-def]
    path = tmp_path_factory.mktemp("journal") / "j"
    with GenerationCache(path, "w") as generation_cache:
        for i in range(5):
            generation_cache.add(str(i), Generation(f"answer {i}", {"n_tokens": i}))
    path.write_bytes(path.read_bytes()[:cut])
    with GenerationCache(path, "w") as again:
        assert all(
            again.get(key) == f"answer {key}" and again.get(key).meta == {"n_tokens": int(key)} for key in again.known
        )
        again.add("9", Generation("new", {}))
        known = dict(again.known)
    with GenerationCache(path, "w") as third:
        assert third.known == known


def test_a_resumed_cache_replaces_the_file_at_once(tmp_path: Path) -> None:
    path = tmp_path / "j"
    with GenerationCache(path, "w") as first:
        first.add("a", Generation("1", {}))
    with path.open() as before, GenerationCache(path, "w"):
        assert len(before.read().splitlines()) == 2, "a kill while it is written again would have lost an answer"
    assert GenerationCache(path, "w").get("a") == "1"


def test_the_key_follows_prompt_and_settings() -> None:
    assert key_of([1, 2], {"max_tokens": 3}) == key_of([1, 2], {"max_tokens": 3})
    assert (
        len({key_of([1, 2], {"max_tokens": 3}), key_of([1, 2], {"max_tokens": 4}), key_of([12], {"max_tokens": 3})})
        == 3
    )


@pytest.mark.parametrize("kind", ["fifo", "link"])
def test_a_cache_that_is_no_file_of_the_run_is_started_over_and_its_target_left_alone(
    tmp_path: Path, kind: str
) -> None:
    (tmp_path / "mine").write_text("precious")
    if kind == "fifo":
        os.mkfifo(tmp_path / "j")
    else:
        (tmp_path / "j").symlink_to("mine")
    with GenerationCache(tmp_path / "j", "weights") as cache:
        cache.add("a", Generation("1", {}))
    assert (tmp_path / "mine").read_text() == "precious" and not (tmp_path / "j").is_symlink()

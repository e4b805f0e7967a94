"""Structures are timed side by side, or in pairs where the device has no room for more."""

from __future__ import annotations

import os
from typing import Any

import pytest

from harness.engine.memory_budget import EngineSettings
from harness.serving import cost_probes
from harness.serving.cost_probes import Timing
from harness.serving.cost_table import Sizes, sizes_of
from harness.serving.workload import Workload, random_prompts
from pruning.checkpoint import open_model
from tests.support.models import TINY_MATH

pytestmark = pytest.mark.slow


@pytest.mark.parametrize("room", [True, False])
def test_each_structure_is_timed_as_often_as_the_others_and_beside_the_first(
    room: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    model, started = open_model(TINY_MATH), []
    engines_for = cost_probes.engines_for
    monkeypatch.setattr(cost_probes, "fit_together", lambda *_: room)
    monkeypatch.setattr(cost_probes, "available_bytes", lambda: 1 << 40)
    monkeypatch.setattr(
        cost_probes,
        "engines_for",
        lambda folders, settings: started.append([*folders]) or engines_for(folders, settings),
    )
    sizes = sizes_of(model.shape)
    probes = {"dense": sizes, "half": Sizes((320,) * 4, sizes.vocabulary), "two": Sizes((640,) * 2, sizes.vocabulary)}

    def configured(of: Sizes) -> dict[str, Any]:
        config = {**model.config, "intermediate_size": of.widths[0], "num_hidden_layers": len(of.widths)}
        return {**config, "layer_types": model.config["layer_types"][: len(of.widths)]}

    workload = Workload("random", random_prompts(2, 8, model.shape.vocab_size), output_tokens=4, requests=2)
    timing = Timing(workload, (1, 2), 2, EngineSettings(max_model_len=32, kv_cache_bytes=1 << 24, threads=1))
    with cost_probes._folders(model, probes, configured) as folders:
        found = cost_probes._passes(model, folders, probes, timing)
    assert started == ([["dense", "half", "two"]] if room else [["dense", "half"], ["dense", "two"]])
    assert {name: [len(level) for level in levels] for name, levels in found.items()} == {
        "dense": [2, 2] if room else [4, 4],
        "half": [2, 2],
        "two": [2, 2],
    }
    assert all(sum(each.answers) == 2 * 4 for levels in found.values() for level in levels for each in level)


class _Started(Exception):
    """In place of engines: which they would be."""


@pytest.mark.parametrize(("share", "first"), [(1.01, ["dense", "half", "two"]), (0.99, ["dense", "half"])])
def test_on_a_cpu_structures_are_timed_together_where_the_free_memory_holds_their_engines(
    share: float, first: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Three engines, each with float32 weights, a cache of 16 MiB and 1 GiB of its own."""

    def start(folders: dict[str, Any], _settings: EngineSettings) -> None:
        raise _Started([*folders])

    model = open_model(TINY_MATH)
    free = int(share * 3 * (4 * model.parameters + (1 << 24) + (1 << 30)))
    monkeypatch.setattr(cost_probes, "device_name", lambda: "cpu")
    monkeypatch.setattr(cost_probes, "available_bytes", lambda: free)
    monkeypatch.setattr(cost_probes, "engines_for", start)
    probes = dict.fromkeys(("dense", "half", "two"), sizes_of(model.shape))
    workload = Workload("random", random_prompts(2, 8, 64), output_tokens=4, requests=2)
    timing = Timing(workload, (1,), 2, EngineSettings("float32", kv_cache_bytes=1 << 24))
    with pytest.raises(_Started) as started:
        cost_probes._passes(model, dict.fromkeys(probes, model), probes, timing)
    assert started.value.args == (first,)


def test_costs_are_kept_for_the_threads_and_cores_that_they_were_timed_on(monkeypatch: pytest.MonkeyPatch) -> None:
    model, workload = open_model(TINY_MATH), Workload("random", random_prompts(2, 8, 64), output_tokens=4, requests=2)
    timing = Timing(workload, (1,), 2, EngineSettings(max_model_len=32, kv_cache_bytes=1 << 24))
    monkeypatch.setattr(cost_probes, "device_name", lambda: "cpu")
    files = []
    for threads, cores in (("2", {0, 1}), ("1", {0, 1}), ("2", {0})):
        monkeypatch.setenv("OMP_NUM_THREADS", threads)
        monkeypatch.setattr(os, "sched_getaffinity", lambda _, cores=cores: cores)
        files.append(cost_probes.table_file(model, timing))
        assert files[-1] == cost_probes.table_file(model, timing)
    assert len({*files}) == 3
    monkeypatch.setattr(cost_probes, "cpu_name", lambda: None)  # as on ARM, whose kernel gives none
    assert cost_probes._device() == os.uname().machine

"""The plugin that builds per-layer widths: its table is that of the families, and it needs none of our packages."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import pytest

from harness_prune import vllm_plugin
from pruning.families import FAMILIES

ROOT = Path(__file__).resolve().parent.parent.parent


def test_the_table_has_every_family_with_per_layer_widths() -> None:
    families = {one.architecture: one for one in FAMILIES.values() if one.supports_nonuniform_widths}
    assert vllm_plugin.FFN.keys() == families.keys(), "harness_prune/vllm_plugin.py needs a row of every new family"
    for architecture, family in families.items():
        layers = vllm_plugin.FFN[architecture]
        cut = {one.name.split(".")[-2] for one in family.cuts}
        assert cut <= set(layers) and set(layers) - cut <= {"gate_proj", "up_proj", "gate_up_proj"}
        assert layers[-1] == family.down.rpartition(".")[2] and family.layers.rpartition(".")[2] == "layers"


@pytest.mark.slow
def test_folders_of_the_user_hide_nothing_of_it(tmp_path: Path) -> None:
    """As `vllm serve` and vLLM's own processes see it, with the working folder and PYTHONPATH first."""
    for name in ("harness", "pruning", "tasks", "recovery", "reports"):
        (tmp_path / f"{name}.py").write_text("raise ImportError('this is of the user')")
    registry = "class ModelRegistry:\n    register_model = staticmethod(lambda name, where: print(name, where))\n"
    (tmp_path / "vllm.py").write_text(registry)
    code = "from harness_prune.vllm_plugin import register; from harness_prune.vllm_name import provide; register()"
    done = subprocess.run(
        [sys.executable, "-c", code],
        cwd=tmp_path,
        env={"PYTHONPATH": f".:{ROOT}"},
        capture_output=True,
        text=True,
    )
    assert done.stderr == ""
    assert "FFNPrunedLlamaForCausalLM harness_prune.vllm_plugin:FFNPrunedLlamaForCausalLM" in done.stdout.splitlines()
    assert len(done.stdout.splitlines()) == len(vllm_plugin.FFN)


def test_no_other_name_is_an_architecture() -> None:
    for name in ("LlamaForCausalLM", "FFNPrunedNothing", "FFNPrunedGPT2LMHeadModel"):
        with pytest.raises(AttributeError, match=name):
            getattr(vllm_plugin, name)


@pytest.mark.slow
def test_a_tensor_parallel_size_that_does_not_divide_is_named_before_vllm_builds_anything() -> None:
    """Also where it is the widest layer, on which vLLM itself would stop with a bare assertion."""
    config = SimpleNamespace(
        model_config=SimpleNamespace(hf_config=SimpleNamespace(intermediate_sizes=[64, 48, 99])),
        parallel_config=SimpleNamespace(tensor_parallel_size=2),
    )
    with pytest.raises(ValueError, match=r"size 2 does not divide the FFN widths \[99\]"):
        vllm_plugin.FFNPrunedQwen2ForCausalLM(vllm_config=config)

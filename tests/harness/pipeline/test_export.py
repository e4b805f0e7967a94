"""The form that a way of serving needs: the one that needs least is chosen, one that cannot say a plan is refused."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from harness.core.errors import UsageError
from harness.core.safetensors_stream import as_array
from harness.pipeline.export import HOMES, export_to
from pruning.checkpoint import open_model
from pruning.export import export
from pruning.plan_file import load_plan, save_plan
from pruning.score_file import load
from tests.support.cli import harness, invoke
from tests.support.models import TINY_MATH, build_model
from tests.support.pruned import plan_keeping, plan_of

UNEVEN = (640, 500, 448, 300)


def plan_file(folder: Path, widths: tuple[int, ...]) -> Path:
    """A plan for tiny-math."""
    keep = [np.random.default_rng(i).permutation(640)[:width] for i, width in enumerate(widths)]
    plan = replace(plan_keeping(TINY_MATH, keep, 640), model="tiny-math", model_kind="alias")
    save_plan(plan, folder / "plan.safetensors")
    return folder / "plan.safetensors"


def test_one_width_needs_nothing(tmp_path: Path) -> None:
    made = export_to(plan_file(tmp_path, (448,) * 4), None, tmp_path / "out")
    assert (made.home, made.serve) == ("vllm", f"vllm serve {tmp_path / 'out'}")
    assert open_model(tmp_path / "out").widths == (448,) * 4
    with pytest.raises(UsageError, match=r"exported to plugin: it has one FFN width.*give --to vllm or decilm"):
        export_to(tmp_path / "plan.safetensors", "plugin", tmp_path / "other")
    assert not (tmp_path / "other").exists()


def test_uneven_widths_become_a_decilm_folder_of_the_same_weights(tmp_path: Path) -> None:
    file = plan_file(tmp_path, UNEVEN)
    expected, _ = invoke("export", str(file), "--out", "decilm", "--dry-run", "--json")
    assert not (tmp_path / "decilm").exists()
    found, _ = invoke("export", str(file), "--out", "decilm", "--json")
    assert found == {**expected, "folder": "decilm"}
    assert expected["weight_bytes"] == (tmp_path / "decilm" / "model.safetensors").stat().st_size
    assert found["home"] == "decilm" and found["serve"] == "vllm serve decilm --trust-remote-code"
    assert "--trust-remote-code" in found["needs"]
    by_plugin = export_to(file, "plugin", tmp_path / "plugin")
    assert by_plugin.serve == f"vllm serve {tmp_path / 'plugin'}" and "harness-prune" in by_plugin.needs
    wanted = export(open_model(TINY_MATH), load_plan(file), tmp_path / "wanted", file).path
    weights = (wanted / "model.safetensors").read_bytes()
    assert all((tmp_path / name / "model.safetensors").read_bytes() == weights for name in ("decilm", "plugin"))
    assert (tmp_path / "plugin" / "config.json").read_bytes() == (wanted / "config.json").read_bytes()
    config = json.loads((tmp_path / "decilm" / "config.json").read_text())
    assert [block["ffn"]["intermediate_size"] for block in config["block_configs"]] == list(UNEVEN)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["decilm", "plan.safetensors", "plugin", "wanted"]
    with pytest.raises(UsageError, match=r"exported to vllm: its FFN width differs.*give --to decilm or plugin"):
        export_to(file, "vllm", tmp_path / "other")


def test_a_plan_or_a_checkpoint_becomes_a_gguf_file(tmp_path: Path) -> None:
    """Of the same bytes either way, with the weights of the checkpoint and nothing left beside it."""
    from gguf import GGUFReader

    file = plan_file(tmp_path, UNEVEN)
    found, _ = invoke("export", str(file), "--to", "gguf", "--out", "model.gguf", "--json")
    needs, serve = HOMES["gguf"].needs, "llama-server -m model.gguf"
    assert found == {"home": "gguf", "file": "model.gguf", "needs": needs, "serve": serve}
    checkpoint = export(open_model(TINY_MATH), load_plan(file), tmp_path / "checkpoint", file)
    (tmp_path / "again").mkdir()
    again = export_to(checkpoint.path, "gguf", tmp_path / "again" / "model.gguf").path
    assert again.read_bytes() == (tmp_path / "model.gguf").read_bytes()
    assert sorted(each.name for each in tmp_path.iterdir()) == ["again", "checkpoint", "model.gguf", "plan.safetensors"]
    reader = GGUFReader(again)
    assert reader.fields["deci.feed_forward_length"].contents() == list(UNEVEN)
    written = {tensor.name: tensor.data.tobytes() for tensor in reader.tensors}
    (shard,) = checkpoint.shards
    stored = {entry.name: as_array(shard.path, entry).tobytes() for entry in shard.entries}
    for layer in range(4):
        for ours, theirs in (("ffn_up", "mlp.up_proj"), ("ffn_down", "mlp.down_proj"), ("attn_v", "self_attn.v_proj")):
            assert written[f"blk.{layer}.{ours}.weight"] == stored[f"model.layers.{layer}.{theirs}.weight"]
    with pytest.raises(UsageError, match=r"model.gguf is there; remove it"):
        export_to(file, "gguf", tmp_path / "model.gguf")


def test_a_checkpoint_becomes_a_decilm_folder(tmp_path: Path) -> None:
    """Of which there may be no plan, as after a fine-tuning."""
    export_to(plan_file(tmp_path, UNEVEN), "plugin", tmp_path / "plugin")
    made = export_to(tmp_path / "plugin", None, tmp_path / "decilm")
    assert made.home == "decilm"
    files = [tmp_path / name / "model.safetensors" for name in ("plugin", "decilm")]
    assert files[0].samefile(files[1]), "no second copy on the disk"
    with pytest.raises(UsageError, match=r"plugin is served as it is: .*--to decilm or gguf"):
        export_to(tmp_path / "plugin", "plugin", tmp_path / "other")
    with pytest.raises(UsageError, match="tiny-math is served as it is"):
        export_to(TINY_MATH, None, tmp_path / "other")


@pytest.mark.parametrize(
    ("what", "reason"),
    [
        ({"skip_ffn": (1,)}, "whole layers, not an FFN block alone"),
        ({"skip_ffn": (1,), "skip_attention": (2, 3)}, "whole layers, not an FFN block alone"),
        ({"kv_keep": ((0, 1), (1,), (0,), (0, 1)), "num_key_value_heads": 2}, "one number of KV heads for all layers"),
    ],
)
def test_what_no_plain_folder_can_say_becomes_a_decilm_folder(
    what: dict[str, Any], reason: str, tmp_path: Path
) -> None:
    what = {**what, "kv_keep": tuple(np.array(kept, np.int32) for kept in what.get("kv_keep", ()))}
    file = plan_file(tmp_path, (640,) * 4)
    plan = replace(load_plan(file), **what)
    save_plan(plan, file)
    expected = export_to(file, None, tmp_path / "out", dry_run=True)
    made = export_to(file, None, tmp_path / "out")
    assert made == expected and made.weight_bytes == (tmp_path / "out" / "model.safetensors").stat().st_size
    assert (made.home, made.serve) == ("decilm", f"vllm serve {tmp_path / 'out'} --trust-remote-code")
    for home in ("vllm", "plugin"):
        with pytest.raises(UsageError, match=rf"exported to {home}: .*{reason}; give --to decilm"):
            export_to(file, home, tmp_path / "other")
    refused = harness("prune", "tiny-math", str(file), "--out", "pruned")
    assert refused.returncode == 2 and f"{reason}; `harness export PLAN` says" in refused.stderr
    assert not (tmp_path / "pruned").exists() and not (tmp_path / "other").exists()


def test_a_plan_without_the_first_attention_has_no_form(tmp_path: Path) -> None:
    file = plan_file(tmp_path, (640,) * 4)
    save_plan(replace(load_plan(file), skip_attention=(0,)), file)
    with pytest.raises(
        UsageError,
        match=r"vllm: .*attention of the first layer.*; decilm: .*attention of the first layer; plugin: .*; plan",
    ):
        export_to(file, None, tmp_path / "out")


@pytest.mark.slow
def test_a_family_without_a_decilm_form_has_the_plugin_or_nothing(tmp_path: Path) -> None:
    for name, wanted in (("opt", "plugin"), ("gpt2", None)):
        model = build_model(name, tmp_path / name)
        plan = replace(plan_of(model, (64, 48, 33)), model=str(model), model_kind="folder")
        save_plan(plan, tmp_path / "plan.safetensors")
        if wanted:
            assert export_to(tmp_path / "plan.safetensors", None, tmp_path / "out").home == wanted
            continue
        with pytest.raises(UsageError, match=r"vllm: its FFN.*decilm: .*plugin: vLLM cannot run gpt2.*--allocation"):
            export_to(tmp_path / "plan.safetensors", None, tmp_path / "none")


def test_every_home_is_an_option_and_says_what_it_needs(tmp_path: Path) -> None:
    help_page = harness("export", "--help").stdout
    assert all(name in help_page and home.needs for name, home in HOMES.items())
    told = harness("export", str(tmp_path / "none.safetensors"), "--out", str(tmp_path / "out"))
    assert told.returncode == 2 and "make one with `harness plan`" in told.stderr


@pytest.mark.slow
def test_elastic_and_slice_on_the_command_line(tmp_path: Path) -> None:
    scored = ("--task", "mini_math", "--calibration-samples", "8", "--metric", "smd", "--threads", "1")
    invoke("score", "tiny-math", *scored, "--out", "scores", "--json")
    found, _ = invoke(
        "elastic", "tiny-math", "scores", "--metric", "smd", "--align", "64", "--out", "elastic", "--json"
    )
    assert found["widths"] == [128, 192, 256, 320, 384, 448, 512, 576, 640] and found["metric"] == "smd"
    assert found["serve"].endswith("""elastic --hf-overrides '{"intermediate_size": 384}'""")
    made, _ = invoke("slice", "elastic", "448", "--out", "narrow", "--json")
    plan = ("--metric", "smd", "--no-compensate", "--ratio", "0.3", "--align", "1")
    invoke("plan", "scores", *plan, "--out", "plan", "--json")
    pruned, _ = invoke("prune", "tiny-math", "plan", "--out", "pruned", "--json")
    assert (made["intermediate_size"], made["weight_bytes"]) == (448, pruned["weight_bytes"])
    for name in ("model.safetensors", "config.json"):
        assert (tmp_path / "narrow" / name).read_bytes() == (tmp_path / "pruned" / name).read_bytes()
    assert load(tmp_path / "scores").scores.keys() >= {"smd"}
    refused = harness("elastic", "tiny-math", "scores", "--metric", "best", "--out", "other", cwd=tmp_path)
    assert refused.returncode == 2 and "score again with --metric obs" in refused.stderr
    refused = harness("slice", "narrow", "100", "--out", "other", cwd=tmp_path)
    assert refused.returncode == 2 and "is no elastic folder" in refused.stderr

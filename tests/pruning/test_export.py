"""The exported checkpoint is the dense model with the removed neurons silent: logits equal in FP32, for every
family.
"""

from __future__ import annotations

import json
import re
import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import yaml
from safetensors.torch import load_file, save_file

from harness.core.errors import StorageError, UnsupportedModelError, UsageError
from harness.core.written_folder import LIST
from harness.pipeline.run_json import variant
from pruning.checkpoint import open_model
from pruning.export import PLAN_COPY, export, predict_size
from pruning.families import FAMILIES, shape_of
from pruning.plan_file import save_plan
from pruning.record import read_record
from pruning.side_files import copy_own_files, is_ours
from tests.support.families import with_both_heads
from tests.support.models import build_model, plain
from tests.support.pruned import masked_logits, plan_for, plan_keeping

pytestmark = pytest.mark.slow


def logits(folder: Path, ids: torch.Tensor) -> torch.Tensor:
    with torch.no_grad():
        return plain(folder, dtype=torch.float32, attn_implementation="eager")(ids).logits


def test_code_that_is_not_copied_is_not_named(tmp_path: Path) -> None:
    folder = build_model("llama", tmp_path / "dense")
    config = json.loads((folder / "config.json").read_text())
    named = {**config, "auto_map": {"AutoConfig": "configuration_x.X"}}
    (folder / "config.json").write_text(json.dumps(named))
    (folder / "configuration_x.py").write_text("class X: ...")
    reading = json.loads((folder / "tokenizer_config.json").read_text())
    own = {**reading, "auto_map": {"AutoTokenizer": ["configuration_x.X", None]}}
    (folder / "tokenizer_config.json").write_text(json.dumps(own))
    made = export(open_model(folder), plan_for(folder), tmp_path / "pruned")
    assert not (made.path / "configuration_x.py").exists()
    assert json.loads((made.path / "config.json").read_text()) == {**config, "intermediate_size": 60}
    assert json.loads((made.path / "tokenizer_config.json").read_text()) == reading
    (tmp_path / "copy").mkdir()
    copy_own_files(folder, tmp_path / "copy")
    assert json.loads((tmp_path / "copy" / "config.json").read_text()) == config


@pytest.mark.parametrize(("model_type", "tie"), with_both_heads(sorted(FAMILIES)))
def test_pruned_equals_masked(model_type: str, tie: bool, tmp_path: Path) -> None:
    folder = build_model(model_type, tmp_path / "dense", tie=tie, shard_size="200KB")
    plan = plan_for(folder)
    made = export(open_model(folder), plan, tmp_path / "pruned")
    ids = torch.randint(2, 1000, (2, 24), generator=torch.Generator().manual_seed(0))
    torch.testing.assert_close(logits(made.path, ids), masked_logits(folder, plan, ids), rtol=1e-5, atol=1e-4)
    assert not torch.allclose(logits(made.path, ids), logits(folder, ids), atol=0.1), "the removed neurons mattered"
    shape = open_model(folder).shape
    biases = (
        sum(cut.name.endswith(".bias") for cut in FAMILIES[model_type].cuts)
        if model_type in ("gpt2", "opt", "gpt_neox")
        else 0
    )
    assert made.parameters == shape.parameters - 3 * 36 * (shape.neuron_parameters + biases)
    predicted = predict_size(open_model(folder), plan)  # to the byte, before anything is written
    assert (predicted.widths, predicted.parameters, predicted.weight_bytes, predicted.record) == (
        made.widths,
        made.parameters,
        made.weight_bytes,
        made.record,
    )


@pytest.mark.parametrize(
    ("model_type", "changes"),
    [
        ("llama", {"mlp_bias": True, "attention_bias": True, "head_dim": 24}),
        ("qwen3", {"head_dim": 40}),
        (
            "gemma3_text",
            {"layer_types": ["sliding_attention", "full_attention", "sliding_attention"], "sliding_window": 8},
        ),
    ],
)
def test_biases_head_sizes_and_layer_types_stay(model_type: str, changes: dict[str, Any], tmp_path: Path) -> None:
    folder = build_model(model_type, tmp_path / "dense", **changes)
    plan = plan_for(folder)
    made = export(open_model(folder), plan, tmp_path / "pruned")
    ids = torch.randint(2, 1000, (2, 24), generator=torch.Generator().manual_seed(0))
    torch.testing.assert_close(logits(made.path, ids), masked_logits(folder, plan, ids), rtol=1e-5, atol=1e-4)
    config = json.loads((made.path / "config.json").read_text())
    assert {key: config[key] for key in changes} == changes
    if "mlp_bias" in changes:
        tensors = load_file(made.path / "model.safetensors")
        assert tensors["model.layers.0.mlp.gate_proj.bias"].shape == (60,) and tensors[
            "model.layers.0.mlp.down_proj.bias"
        ].shape == (64,)


def test_ratio_zero_is_the_same_weights(random_model: Path, tmp_path: Path) -> None:
    made = export(open_model(random_model), plan_for(random_model, width=96), tmp_path / "same")
    for shard in random_model.glob("*.safetensors"):
        original, copied = load_file(shard), load_file(made.path / shard.name)
        assert original.keys() == copied.keys()
        assert all(torch.equal(original[name], copied[name]) for name in original)


def test_the_export_is_complete_and_says_what_was_done(random_model: Path, tmp_path: Path) -> None:
    made = export(open_model(random_model), plan_for(random_model), tmp_path / "pruned")
    index = json.loads((made.path / "model.safetensors.index.json").read_text())
    assert index["metadata"]["total_size"] == made.parameters * 4
    assert all(name in load_file(made.path / shard) for name, shard in index["weight_map"].items())
    assert (made.path / "tokenizer.json").exists()
    assert (made.path / "chat_template.jinja").exists()
    assert (made.path / "generation_config.json").read_bytes() == (random_model / "generation_config.json").read_bytes()
    record = read_record(made.path)
    assert record is not None
    assert (record["method"], record["dense_intermediate_size"], record["scores_hash"]) == ("random", 96, "hash")


def test_plan_templates_and_a_card_go_along(random_model: Path, tmp_path: Path) -> None:
    model = tmp_path / "lab" / "my-model"
    shutil.copytree(random_model, model)
    (model / "additional_chat_templates").mkdir()
    (model / "additional_chat_templates" / "tool.jinja").write_text("tools")
    (model / "README.md").write_text("---\nlicense: mit\ntags: [maths]\nwidget: x\n---\nThe first card.\n")
    plan = replace(plan_for(model), model=str(model))
    save_plan(plan, tmp_path / "plan.safetensors")
    made = export(open_model(model), plan, tmp_path / "pruned", tmp_path / "plan.safetensors").path
    assert (made / "additional_chat_templates" / "tool.jinja").read_text() == "tools"
    assert (made / PLAN_COPY).read_bytes() == (tmp_path / "plan.safetensors").read_bytes()
    _, front, body = (made / "README.md").read_text().split("---\n", 2)
    assert yaml.safe_load(front) == {"license": "mit", "tags": ["maths", "pruned"]}, (
        "a folder is nobody's base model on the Hub"
    )
    assert "37.5% of the FFN neurons removed" in body and "96 -> 60" in body and "The first card." in body
    assert str(tmp_path) not in body


def test_pruned_twice_keeps_both_steps(random_model: Path, tmp_path: Path) -> None:
    plans = [tmp_path / f"{i}.safetensors" for i in range(3)]
    made, widths = open_model(random_model), (96, 72, 54, 40)
    first = made
    for before, after, file in zip(widths, widths[1:], plans, strict=False):
        plan = plan_keeping(made.path, [np.arange(after)] * 3, before, model_kind="folder")
        plan = replace(plan, model=str(made.path))
        save_plan(plan, file)
        predicted = predict_size(made, plan)
        made = export(made, plan, tmp_path / str(after), file)
        assert predicted.record == made.record, "what a sweep says of it without writing it"
    record = made.record
    assert record is not None and [step["intermediate_size"] for step in record["steps"]] == [96, 72, 54]
    assert (record["dense_intermediate_size"], record["dense_parameters"]) == (96, first.parameters)
    assert (record["model"], record["model_hash"]) == (str(first.path), first.fingerprint)
    assert record["steps"][1]["model"] == str(tmp_path / "72") and record["steps"][0]["widths"] == [72] * 3
    assert len({step["plan_hash"] for step in record["steps"]}) == 3
    kept = [made.path / "pruning" / f"plan{end}.safetensors" for end in ("-1", "-2", "")]
    assert [file.read_bytes() for file in kept] == [file.read_bytes() for file in plans]
    assert "58.3% of the FFN neurons removed" in (made.path / "README.md").read_text()
    assert variant("twice", made, None).ratio_neurons == pytest.approx(1 - 40 / 96)


def test_a_step_of_an_older_version_is_kept(random_model: Path, tmp_path: Path) -> None:
    once = export(open_model(random_model), plan_for(random_model, width=72), tmp_path / "once")
    old = {key: value for key, value in (once.record or {}).items() if key not in ("steps", "model_kind")}
    (once.path / "pruning.json").write_text(json.dumps(old))
    once = open_model(once.path)
    twice = export(once, plan_keeping(once.path, [np.arange(54)] * 3, 72), tmp_path / "twice")
    assert twice.record is not None and [step["widths"][0] for step in twice.record["steps"]] == [72, 54]
    assert (twice.record["model_kind"], twice.record["dense_intermediate_size"]) == ("unknown", 96)


@pytest.mark.parametrize("steps", [[], "two", [{}], [1] * 3])
def test_a_record_with_other_steps_is_refused(steps: Any, random_model: Path, tmp_path: Path) -> None:
    made = export(open_model(random_model), plan_for(random_model), tmp_path / "made")
    (made.path / "pruning.json").write_text(json.dumps({**(made.record or {}), "steps": steps}))
    with pytest.raises(UsageError, match=r"pruning\.json has no usable steps"):
        open_model(made.path)


SIDE = [
    "LICENSE",
    "NOTICE.txt",
    "vocab.json",
    "merges.txt",
    "tokenizer.model",
    "qwen.tiktoken",
    "tool.jinja",
    "preprocessor_config.json",
    "vocab.txt",
    "LICENSE-APACHE.txt",
    "MODEL_LICENSE",
    "USE_POLICY.md",
    "assets/loss.png",
    "chat_template.json",
    "added_tokens.json",
]
LEFT = [
    ".env",
    "hf_token.txt",
    "trainer_state.json",
    "events.out.tfevents.1",
    "optimizer.pt",
    "scheduler.pt",
    "rng_state_0.pth",
    "training_args.bin",
    "params.json",
    "hf_quant_config.json",
    "quantize_config.json",
    "wandb/run.json",
    "runs/a/events",
    "adapter_model.safetensors",
    "tokenizer.py",
    "license.key",
    "id_rsa",
    "license_key.txt",
    "hub_license_token",
    "LICENSE-KEY.txt",
    "vocab_secret.txt",
    "secrets.vocab.txt",
    "assets/other.png",
    "assets/secret.txt",
    "token.json",
    "notes.md",
    "copying.pem",
    "pytorch_model.bin",
]


def test_only_what_belongs_to_a_checkpoint_is_copied(
    random_model: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    model = tmp_path / "model"
    shutil.copytree(random_model, model)
    for name in (*SIDE, *LEFT):
        (model / name).parent.mkdir(parents=True, exist_ok=True)
        (model / name).write_text("{}")
    (model / "README.md").write_text("![loss](./assets/loss.png) ![](https://x.org/assets/none.png) ![](../p.png)")
    (tmp_path / "p.png").write_text("outside")
    made = export(open_model(model), plan_for(model), tmp_path / "pruned").path
    assert [name for name in SIDE if not (made / name).is_file()] == []
    assert [name for name in LEFT if (made / name).exists()] == []
    (line,) = [line for line in capsys.readouterr().err.splitlines() if "left out" in line]
    assert ".env" in line and "and 1" in line and "LICENSE," not in line and "README" not in line


def test_an_out_below_the_model_is_not_among_what_is_left_out(
    random_model: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    model = tmp_path / "model"
    shutil.copytree(random_model, model)
    export(open_model(model), plan_for(model), model / "sub")
    assert "left out" not in capsys.readouterr().err


def test_a_link_to_nothing_in_the_model_is_named(random_model: Path, tmp_path: Path) -> None:
    model = tmp_path / "model"
    shutil.copytree(random_model, model)
    (model / "chat_template.jinja").unlink()
    (model / "chat_template.jinja").symlink_to("../../blobs/abc")
    with pytest.raises(UsageError, match=r"chat_template\.jinja is a link to \.\./\.\./blobs/abc, which is not there"):
        open_model(model)


def test_the_same_plan_gives_the_same_bytes(random_model: Path, tmp_path: Path) -> None:
    a, b = (export(open_model(random_model), plan_for(random_model), tmp_path / name).path for name in ("a", "b"))
    assert all((b / file.name).read_bytes() == file.read_bytes() for file in a.iterdir())


def test_the_dtype_of_the_checkpoint_stays(tmp_path: Path) -> None:
    folder = build_model("qwen2", tmp_path / "dense", dtype="bfloat16")
    made = export(open_model(folder), plan_for(folder), tmp_path / "pruned")
    assert {t.dtype for t in load_file(made.path / "model.safetensors").values()} == {torch.bfloat16}


def test_a_plan_for_another_model_is_refused(random_model: Path, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="plan is for 2 layers of width 96, the model has 3 of 96"):
        export(open_model(random_model), plan_for(random_model, layers=2), tmp_path / "pruned")
    assert list(tmp_path.iterdir()) == []


def test_a_plan_for_other_weights_is_refused(random_model: Path, tmp_path: Path) -> None:
    other = build_model("llama", tmp_path / "other")
    with pytest.raises(UsageError, match="has other weights"):
        export(open_model(other), plan_for(random_model), tmp_path / "pruned")
    assert [p.name for p in tmp_path.iterdir()] == ["other"]


def test_a_model_or_any_other_folder_is_never_written_over(random_model: Path, tmp_path: Path) -> None:
    (tmp_path / "thesis").mkdir()
    (tmp_path / "thesis" / "chapter.tex").write_text("years of work")
    for out in (random_model, tmp_path / "thesis"):
        before = sorted(p.name for p in out.iterdir())
        with pytest.raises(UsageError, match="another --out"):
            export(open_model(random_model), plan_for(random_model), out)
        assert sorted(p.name for p in out.iterdir()) == before
    first = export(open_model(random_model), plan_for(random_model), tmp_path / "pruned")
    assert (
        export(open_model(random_model), plan_for(random_model, width=40), tmp_path / "pruned").parameters
        < first.parameters
    )


def test_what_was_added_to_a_checkpoint_or_changed_in_it_is_not_replaced(random_model: Path, tmp_path: Path) -> None:
    """Notes, an adapter, a training; and the card that somebody wrote on. A run replaces its own damaged files."""
    model, plan, out = open_model(random_model), plan_for(random_model), tmp_path / "pruned"
    for name in ("notes.txt", "recovery.json", "adapter/adapter_model.safetensors", "README.md"):
        shutil.rmtree(out, ignore_errors=True)
        export(model, plan, out)
        (out / name).parent.mkdir(exist_ok=True)
        (out / name).write_text("{}")
        with pytest.raises(UsageError, match=f"holds {name}, .*another --out"):
            export(model, plan, out)
        assert (out / name).read_text() == "{}"
    assert "How it was made" in (export(model, plan, out, repair=True).path / "README.md").read_text()


@pytest.mark.parametrize("repair", [False, True])
@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("pruning.json", "{}"),
        ("pruning.json", '{"method": "magnitude", "sparsity": 0.5}'),
        ("pruning.json", "no JSON"),
        ("README.md", "# Mine"),
        ("LICENSE", "MIT"),
        ("notes.txt", "mine"),
    ],
)
def test_a_model_of_another_tool_without_our_list_is_kept(
    name: str, text: str, repair: bool, random_model: Path, tmp_path: Path
) -> None:
    """A file that is only called pruning.json makes no folder ours; a card and a licence of others stay."""
    model, plan, out = open_model(random_model), plan_for(random_model), tmp_path / "pruned"
    export(model, plan, out)
    (out / LIST).unlink()
    export(model, plan, out)  # of an older version, which kept no list
    (out / LIST).unlink()
    (out / name).write_text(text)
    with pytest.raises(UsageError, match=rf"holds {re.escape(name)}, not written here, .*another --out"):
        export(model, plan, out, repair=repair)
    assert (out / name).read_text() == text and (out / "config.json").exists()


@pytest.mark.parametrize(
    ("text", "ours"), [('{"steps": 10}', True), ("{}", False), ("[]", False), ('{"steps": "x"}', False)]
)
def test_a_file_of_another_tool_is_no_record_of_a_recovery(text: str, ours: bool, tmp_path: Path) -> None:
    (tmp_path / "recovery.json").write_text(text)
    assert is_ours(tmp_path, "recovery.json") is ours


def damaged(random_model: Path, tmp_path: Path) -> Path:
    copy = tmp_path / "damaged"
    shutil.copytree(random_model, copy)
    shard = sorted(copy.glob("*.safetensors"))[-1]
    tensors = load_file(shard)
    next(iter(tensors.values())).view(-1)[0] = float("nan")
    save_file(tensors, shard, {"format": "pt"})
    return copy


def test_nan_and_a_full_disk_leave_nothing_half_written(
    random_model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    copy = damaged(random_model, tmp_path)
    with pytest.raises(UnsupportedModelError, match="holds NaN"):
        export(open_model(copy), plan_for(copy), tmp_path / "pruned")
    usage = shutil.disk_usage(tmp_path)
    monkeypatch.setattr(shutil, "disk_usage", lambda _: usage._replace(free=1000))
    with pytest.raises(StorageError, match="free some disk space"):
        export(open_model(random_model), plan_for(random_model), tmp_path / "pruned")
    assert [p.name for p in tmp_path.iterdir()] == ["damaged"]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"model_type": "bert"}, "'bert' is not known"),
        ({"num_experts": 8}, "mixture of experts"),
        ({"quantization_config": {"quant_method": "awq"}}, "quantised"),
        ({"hidden_size": None}, "no usable hidden_size"),
    ],
)
def test_other_architectures_are_refused(edited_config, change: dict[str, object], message: str) -> None:  # type: ignore[no-untyped-def]
    folder = edited_config(**change)
    with pytest.raises(UnsupportedModelError, match=message):
        shape_of(json.loads((folder / "config.json").read_text()))

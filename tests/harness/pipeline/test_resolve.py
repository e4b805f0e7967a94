"""Which variants a command makes of its settings."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import pytest
import torch

from harness.config.settings import load_config
from harness.core import memory
from harness.core.errors import MeasurementError, UsageError
from harness.engine import memory_budget
from harness.pipeline.dry_run import forecast, forecast_score
from harness.pipeline.resolve import resolve, resolve_recovery
from harness.pipeline.single_stage import evaluate_checkpoint
from harness.sweeps.grid import resolve_sweep
from pruning.checkpoint import open_model
from tests.support.data import make_data_folder
from tests.support.models import build_model

LOCAL = ("gsm8k", "mini_facts")  # nothing of the Hub beside the target


def config(**options: Any) -> Any:
    return load_config(None, {"model": "tiny-math", **options})


def test_a_run_has_one_arm_and_recovers_it_with_its_control() -> None:
    plain, recovered = resolve(config()), resolve(config(recover=True))
    assert plain.variants == ("dense", "selective-best-0.2") == plain.served
    assert recovered.variants == (*plain.variants, "dense-recovered", "selective-best-0.2-recovered")
    assert json.loads(json.dumps(recovered.settings)) == recovered.settings  # as a manifest gives it back
    assert (
        resolve(config(recover=True, steps=7)).settings == recovered.settings
    )  # its stages follow the recipe by themselves
    with pytest.raises(UsageError, match="add --recover"):
        resolve(config(steps=7))


def test_arms_become_variants_and_dense_the_control() -> None:
    spec = resolve_recovery(
        config(arms="selective,random,reverse,dense", ratio=0.3, seed=7, metric="smd", recover=True)
    )
    pruned = ("selective-S-0.3", "random-0.3-seed7", "reverse-S-0.3")
    assert spec.variants == ("dense", *pruned, *(f"{name}-recovered" for name in (*pruned, "dense")))
    assert [arm.request.metric for arm in spec.arms] == ["smd", None, "smd"]
    assert spec.score_request.metrics == ("smd",) and not spec.score_request.needs


def test_what_was_asked_about_the_metric_is_the_selective_arms() -> None:
    spec = resolve_recovery(
        config(
            arms=("selective", "random", "reverse"), metric="best", sequential=True, allocation="global", recover=True
        )
    )
    selective, random, reverse = (arm.request for arm in spec.arms)
    assert (selective.metric, selective.compensated, selective.sequential) == ("obs", True, True)
    assert (random.metric, random.compensated, random.sequential, random.allocation) == (None, False, False, "uniform")
    assert (reverse.metric, reverse.compensated, reverse.sequential, reverse.allocation) == (
        "smd",
        False,
        False,
        "global",
    )


def test_without_arms_the_model_is_fine_tuned_as_it_is(ragged_model: Path) -> None:
    assert resolve_recovery(config(recover=True)).variants == ("dense", "dense-recovered")
    pruned = config(model=str(ragged_model), task=("mini_math",), recover=True)
    assert resolve_recovery(pruned).variants == ("pruned", "pruned-recovered")
    with pytest.raises(UsageError, match="is pruned already; leave out --arms"):
        resolve_recovery(config(model=str(ragged_model), task=("mini_math",), arms=("dense",), recover=True))


def test_a_target_without_training_items_is_refused_before_any_work() -> None:
    with pytest.raises(UsageError, match="similarity has no training split"):
        resolve_recovery(config(task=("similarity",), recover=True))
    assert resolve(config(task=("similarity",))).target.name == "similarity"
    assert resolve_recovery(config(task=("similarity",), recover=True, data="mine.jsonl")).recovered == ("dense",)


@pytest.mark.parametrize(("asked", "expected"), [("rms", "rms"), ("best", "smd"), (None, "smd")])
def test_a_reverse_arm_beside_others_follows_the_metric_and_best_is_none_for_it(
    asked: str | None, expected: str
) -> None:
    """The metric best comes with a re-fit, which a reverse arm has not; there S takes its place."""
    found = resolve_recovery(config(arms=("selective", "reverse"), metric=asked, recover=True))
    assert found.arms[1].request.metric == expected
    assert resolve(config(method="reverse", metric=asked)).arms[0].request.metric in (expected, "obs")


@pytest.mark.parametrize("model_type", ["gpt2", "gemma3", "qwen2_5_vl"])
def test_widths_that_vllm_cannot_run_are_refused_before_any_work(model_type: str, tmp_path: Path) -> None:
    model = str(build_model(model_type, tmp_path / "m"))
    assert resolve(config(model=model, task=("mini_math",))).shape.model_type == model_type
    with pytest.raises(UsageError, match=f"{model_type} with non-uniform FFN widths; use --allocation uniform"):
        resolve(config(model=model, task=("mini_math",), allocation="global"))


def gpus(monkeypatch: pytest.MonkeyPatch, count: int) -> None:
    monkeypatch.setattr(torch.cuda, "device_count", lambda: count)
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda: (9, 0))


@pytest.mark.parametrize("resolver", [resolve, resolve_recovery, resolve_sweep])
def test_gpus_that_are_not_here_or_cannot_divide_the_model_are_refused(
    resolver: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Before any work, and so on a dry run too. Qwen2.5-7B has 28 heads; two GPUs make the alignment 256."""
    gpus(monkeypatch, 0)
    with pytest.raises(UsageError, match="--tensor-parallel 2 needs 2 GPUs and none is here"):
        resolver(config(model="qwen-7b", task=LOCAL, tensor_parallel=2, recover=resolver is resolve_recovery))
    gpus(monkeypatch, 8)
    with pytest.raises(UsageError, match="over 8 GPUs cannot divide the 28 attention heads of qwen-7b"):
        resolver(config(model="qwen-7b", task=LOCAL, tensor_parallel=8, recover=resolver is resolve_recovery))
    found = resolver(
        config(model="qwen-7b", task=LOCAL, tensor_parallel=2, recover=resolver is resolve_recovery, arms=())
    )
    assert {arm.request.alignment for arm in found.arms} <= {256}
    assert found.settings["tensor_parallel"] == 2 and found.calibration_request.engine.tensor_parallel == 2


def test_an_alignment_that_gpus_could_not_divide_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    gpus(monkeypatch, 2)
    with pytest.raises(UsageError, match=r"--align 1 is not a multiple of --tensor-parallel 2.* give --align 256"):
        resolve(config(model="qwen-7b", task=LOCAL, tensor_parallel=2, align=1))


def test_a_layers_own_width_that_gpus_cannot_divide_is_refused(
    ragged_model: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    odd = sorted({width for width in open_model(ragged_model).widths if width % 2})
    assert odd
    gpus(monkeypatch, 2)
    with pytest.raises(UsageError, match=f"over 2 GPUs cannot divide the FFN width {odd[0]} of "):
        resolve_recovery(config(model=str(ragged_model), task="mini_math", tensor_parallel=2, recover=True))


def test_vllms_own_options_are_part_of_what_a_run_directory_is_bound_to() -> None:
    plain, told = resolve(config()), resolve(config(engine_arg={"block_size": 32}))
    assert plain.settings != told.settings and told.settings["engine_arg"] == {"block_size": 32}
    assert told.calibration_request.engine.options == {"block_size": 32}


@pytest.mark.parametrize("resolver", [resolve, resolve_recovery, resolve_sweep])
def test_a_model_that_fits_no_gpu_here_is_refused_before_it_is_scored(
    resolver: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Qwen2.5-7B: 1.1 * 14.2 GiB of weights and 4 GiB to work in, within nine tenths of the GPU, or of two."""
    monkeypatch.setattr(memory_budget, "device_name", lambda: "cuda")
    monkeypatch.setattr(memory_budget, "device_bytes", lambda: 20 << 30)
    gpus(monkeypatch, 2)
    with pytest.raises(MeasurementError, match=r"qwen-7b does not fit on one GPU of 20.* give --tensor-parallel"):
        resolver(config(model="qwen-7b", task=LOCAL, recover=resolver is resolve_recovery))
    assert resolver(config(model="qwen-7b", task=LOCAL, recover=resolver is resolve_recovery, tensor_parallel=2)).config


@pytest.mark.slow
def test_a_run_is_bound_to_the_content_of_foreign_tasks_and_not_to_their_folder(tmp_path: Path) -> None:
    first, second = (own_task(tmp_path / name, tmp_path / "rows.jsonl") for name in ("a", "b"))
    there, here = (resolve(config(task="sums", include_path=folder)) for folder in (first, second))
    assert [task.name for task in there.tasks] == ["sums"] and there.settings == here.settings
    with (second / "sums.yaml").open("a") as file:
        file.write("num_fewshot: 1\n")
    assert resolve(config(task="sums", include_path=second)).settings != there.settings
    assert "tasks_of_lm_eval" not in resolve(config()).settings  # run directories of our tasks stay what they are


@pytest.fixture()
def general(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Data of GSM8K and WikiText, and a folder with tasks that are called as those of lm-eval off target."""
    data, folder = tmp_path / "data", tmp_path / "general"
    data.mkdir()
    monkeypatch.setenv("HARNESS_DATA_DIR", str(make_data_folder(data)))
    for name in ("arc_easy", "piqa"):
        own_task(folder, tmp_path / "rows.jsonl", name)
    return folder


@pytest.mark.slow
def test_a_real_model_has_general_tasks_off_target_and_a_small_one_has_none(
    general: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(memory, "available_bytes", lambda: 24 * 10**9)
    real = resolve(config(model="qwen-7b", task="gsm8k", include_path=general, metric_of="piqa=acc"))
    assert [task.name for task in real.tasks] == ["gsm8k_boxed", "wikitext", "arc_easy", "piqa"]
    assert forecast(real).cells[:4] == tuple(f"dense x {task.name}" for task in real.tasks)
    own = resolve(config(model="smollm2-135m", task="arc_easy", include_path=general))
    assert [task.name for task in own.tasks] == ["arc_easy", "wikitext", "piqa"]
    assert [task.name for task in resolve(config(task="arc_easy", include_path=general)).tasks] == ["arc_easy"]
    mini = resolve(config(model="qwen-7b", task="mini_math"))
    assert [task.name for task in mini.tasks] == ["mini_math", "mini_facts", "mini_code"]


@pytest.mark.slow
def test_data_that_are_not_there_are_refused_by_the_dry_run_with_what_to_type(
    general: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(memory, "available_bytes", lambda: 24 * 10**9)
    asked = {"model": "qwen-7b", "task": "gsm8k"}
    with pytest.raises(UsageError) as raised:
        resolve(config(**asked))  # arc_easy is on the Hub, which tests cannot reach
    assert "arc_easy is evaluated beside gsm8k_boxed by default, and lm-eval cannot load" in str(raised.value)
    assert str(raised.value).endswith("or name the tasks, as in --task gsm8k_boxed,wikitext")
    assert forecast(resolve(config(**asked | {"task": ("gsm8k_boxed", "wikitext")}))).cells
    monkeypatch.delenv("HARNESS_DATA_DIR")
    for check in (lambda spec: forecast(spec), lambda spec: forecast_score(spec, general / "scores.safetensors")):
        with pytest.raises(UsageError, match=r"openai/gsm8k cannot be loaded .* local copy gsm8k_train\.jsonl"):
            check(resolve(config(**asked), off_target=False))


@pytest.mark.slow
@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"task": "sum"}, "unknown task 'sum'; did you mean sums?"),
        ({"task": "sums", "metric_of": "sums=bleu"}, "sums has the metrics acc and the filters none"),
        ({"task": "sums", "metric_of": "other=acc"}, "--metric-of: other is not among the tasks"),
        ({"task": "mini_math", "metric_of": "mini_math=acc"}, "mini_math is not a task of lm-eval's own"),
        ({"task": "sums", "include_path": "missing"}, "missing is not a folder"),
    ],
)
def test_foreign_tasks_that_cannot_be_are_refused_before_any_work(
    options: dict[str, Any], message: str, tmp_path: Path
) -> None:
    given = {"include_path": own_task(tmp_path / "a", tmp_path / "rows.jsonl"), **options}
    with pytest.raises(UsageError, match=re.escape(message)):
        resolve(config(**given))


@pytest.mark.slow
def test_a_task_of_the_users_own_with_the_name_of_one_of_ours_is_not_passed_over(tmp_path: Path) -> None:
    folder = own_task(tmp_path / "a", tmp_path / "rows.jsonl", "mini_facts")
    told = re.escape(f"mini_facts is a task of ours, and {folder / 'mini_facts.yaml'} has the same name")
    with pytest.raises(UsageError, match=told):
        resolve(config(task="mini_facts", include_path=folder))
    with pytest.raises(UsageError, match=told):
        evaluate_checkpoint(config(task="mini_facts", include_path=folder), tmp_path / "run", fresh=False)
    assert not (tmp_path / "run").exists()
    assert resolve(config(task="mini_code", include_path=folder), off_target=False).target.name == "mini_code"


def own_task(folder: Path, rows: Path, name: str = "sums") -> Path:
    """A folder with a task, whose data are elsewhere."""
    folder.mkdir(exist_ok=True)
    items = [{"q": f"{i} + {i} =", "options": ["1", str(2 * i)]} for i in range(6)]
    rows.write_text("".join(json.dumps(row) + "\n" for row in items))
    files = json.dumps({"train": str(rows), "test": str(rows.with_suffix(".test"))})
    rows.with_suffix(".test").write_text(json.dumps({"q": "9 + 9 =", "options": ["1", "18"]}) + "\n")
    (folder / f"{name}.yaml").write_text(
        f"task: {name}\ndataset_path: json\ndataset_kwargs: {{data_files: {files}}}\ntraining_split: train\n"
        "test_split: test\noutput_type: multiple_choice\ndoc_to_text: q\ndoc_to_choice: options\n"
        "doc_to_target: 1\nmetric_list: [{metric: acc, aggregation: mean, higher_is_better: true}]\n"
    )
    return folder


def test_structures_that_a_run_cannot_remove_are_refused_by_name() -> None:
    with pytest.raises(
        UsageError, match=r"no config.json of \w+ can leave out FFN blocks; use --structure layer, or .* decilm`"
    ):
        forecast(resolve(config(structure="ffn")))
    with pytest.raises(UsageError, match="KV groups need uniform, or `harness score`, `harness plan` and"):
        forecast(resolve(config(structure="kv_group", allocation="global")))
    with pytest.raises(UsageError, match=r"lape cannot score a KV group; use one of smd"):
        resolve(config(structure="kv_group", metric="lape"))
    with pytest.raises(UsageError, match=r"`harness sweep` removes FFN neurons, not each kv_group"):
        resolve_sweep(config(structure="kv_group"))
    spec = resolve(config(structure="kv_group", ratio=0.5, method="reverse"))
    assert spec.variants == ("dense", "kv_group-reverse-S-0.5") and spec.score_request.structure == "kv_group"


def test_a_single_item_of_a_mean_is_refused_where_it_would_have_no_interval(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="--limit 1 leaves no interval for gsm8k_answers"):
        resolve(config(task="mini_math,gsm8k_answers", limit=1))
    with pytest.raises(UsageError, match="--limit 1 leaves no interval for wikitext"):
        evaluate_checkpoint(config(task="wikitext", limit=1), tmp_path / "run", False)
    assert resolve(config(task="mini_math", limit=1)).tasks[0].name == "mini_math"


def test_a_single_item_is_refused_where_a_fine_tuned_variant_is_compared_with_the_fine_tuned_base() -> None:
    with pytest.raises(UsageError, match="one item leaves no interval"):
        resolve(config(recover=True, limit=1))
    with pytest.raises(UsageError, match="one item leaves no interval"):
        resolve_recovery(config(recover=True, limit=1, arms=("selective", "dense")))
    assert resolve_recovery(config(recover=True, limit=1)).recovered == ("dense",)
    assert resolve_recovery(config(recover=True, limit=1, arms=("selective",))).exported is None

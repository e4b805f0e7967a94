"""`harness eval` against `lm_eval --model hf` on tasks of lm-eval's kinds: the same n, values and standard errors."""

from __future__ import annotations

import importlib.util
import json
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from harness.config.settings import load_config
from harness.core.types.evaluation import EvalResult, GroupResult, MetricValue
from harness.pipeline.single_stage import evaluate_checkpoint
from tasks.mini_math.task import items
from tests.support.models import TINY_MATH

pytestmark = [pytest.mark.slow, pytest.mark.long]

_DATA = "dataset_path: json\ndataset_kwargs: {{data_files: {{test: {data}}}}}\ntest_split: test\n"
_MEAN = "aggregation: mean, higher_is_better: true"
YAML = {
    # gsm8k of lm-eval itself, with its two filters, on other items
    "like_gsm8k": "include: {gsm8k}\ntask: like_gsm8k\ntag: null\ndataset_name: null\nfewshot_split: test\n"
    "training_split: null\nnum_fewshot: 0\ngeneration_kwargs: {{until: ['<|im_end|>'], max_new_tokens: 96}}\n",
    "choice": "task: choice\noutput_type: multiple_choice\ndoc_to_text: '{{{{question}}}}'\ndoc_to_target: choice\n"
    "doc_to_choice: ['#### 1', '#### 2', 'none of them']\nmetric_list:\n"
    f"  - {{{{metric: acc, {_MEAN}}}}}\n  - {{{{metric: acc_norm, {_MEAN}}}}}\n",
    "text": "task: text\noutput_type: loglikelihood_rolling\ndoc_to_text: ''\ndoc_to_target: '{{{{question}}}}'\n"
    "metric_list:\n  - {{metric: word_perplexity}}\n  - {{metric: byte_perplexity}}\n  - {{metric: bits_per_byte}}\n",
    "word": "task: word\noutput_type: loglikelihood\ndoc_to_text: '{{{{question}}}}'\ndoc_to_target: ' ####'\n"
    f"metric_list:\n  - {{{{metric: perplexity, aggregation: perplexity, higher_is_better: false}}}}\n"
    f"  - {{{{metric: acc, {_MEAN}}}}}\n",
    "repeated": "task: repeated\noutput_type: generate_until\nrepeats: 3\ndoc_to_text: '{{{{question}}}}'\n"
    "doc_to_target: '{{{{answer}}}}'\ngeneration_kwargs: {{until: ['<|im_end|>'], max_tokens: 64, temperature: 0}}\n"
    f"metric_list: [{{{{metric: exact_match, {_MEAN}}}}}]\nfilter_list:\n"
    "  - {{name: vote, filter: [{{function: regex, regex_pattern: '(\\d+)', group_select: -1}},"
    " {{function: majority_vote}}, {{function: take_first}}]}}\n",
}
GROUP = (
    "group: both\ntask: [choice, word]\n"
    "aggregate_metric_list: [{metric: acc, aggregation: mean, weight_by_size: true}]\n"
)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    made = tmp_path_factory.mktemp("tasks")
    rows = [
        {"question": p.question, "answer": p.solution.replace("####", "\n####"), "choice": i % 3}
        for i, p in enumerate(items("validation", 16))
    ]
    (made / "data.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    package = Path(str(importlib.util.find_spec("lm_eval").origin)).parent  # type: ignore[union-attr]
    data = _DATA.format(data=made / "data.jsonl")
    for name, text in YAML.items():
        more = text.format(gsm8k=package / "tasks" / "gsm8k" / "gsm8k.yaml")
        (made / f"{name}.yaml").write_text(f"{more}{data}metadata: {{version: 1}}\n", encoding="utf-8")
    (made / "both.yaml").write_text(GROUP, encoding="utf-8")
    return made


NAMES = ("like_gsm8k", "both", "text", "repeated")


@pytest.fixture(scope="module")
def stock(folder: Path) -> Mapping[str, Any]:
    """What lm-eval's own command computes, with its model class for transformers in FP32."""
    from lm_eval import simple_evaluate
    from lm_eval.tasks import TaskManager

    raw = simple_evaluate(
        "hf",
        model_args={"pretrained": str(TINY_MATH), "dtype": "float32", "max_length": 512},
        tasks=list(NAMES),
        task_manager=TaskManager(include_path=str(folder)),
        apply_chat_template=True,
        device="cpu",
        limit=12,
    )
    return dict(raw or {})


@pytest.fixture(scope="module")
def ours(folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Any:
    chosen = {"include_path": folder, "metric_of": "like_gsm8k=exact_match,flexible-extract"}
    settings = {"model": "tiny-math", "task": (",".join(NAMES),), "limit": 12, "dtype": "float32"}
    config = load_config(None, {**settings, **chosen})
    out = tmp_path_factory.mktemp("run") / "eval"
    return replace(evaluate_checkpoint(config, out, False), folder=out)


def same(found: EvalResult | GroupResult, row: Mapping[str, Any]) -> None:
    """Every figure that lm-eval lists, and no other."""
    numbers = {key: value for key, value in row.items() if "," in key and "_stderr" not in key}
    assert [f"{each.metric},{each.filter}" for each in found.metrics] == list(numbers)
    for each in found.metrics:
        value, error = numbers[f"{each.metric},{each.filter}"], row[f"{each.metric}_stderr,{each.filter}"]
        assert each.value == pytest.approx(value, rel=1e-4)
        assert each.stderr == (None if error == "N/A" else pytest.approx(error, rel=1e-3, abs=1e-12))


@pytest.mark.parametrize("task", ["like_gsm8k", "choice", "word", "text", "repeated"])
def test_a_task_has_the_figures_of_lm_evals_own_command(task: str, stock: Mapping[str, Any], ours: Any) -> None:
    found = ours.variants[0].eval[task]
    assert found.n == stock["n-samples"][task]["effective"] == 12
    same(found, stock["results"][task])


def test_each_item_counts_once_with_the_filter_that_was_asked_for(ours: Any) -> None:
    found = ours.variants[0].eval["like_gsm8k"]
    assert {each.filter for each in found.metrics} == {"strict-match", "flexible-extract"}
    chosen = next(each for each in found.metrics if each.filter == "flexible-extract")
    assert (found.metric, found.filter, found.value) == ("exact_match", "flexible-extract", chosen.value)
    rows = [json.loads(line) for line in (ours.folder / found.samples).read_text(encoding="utf-8").splitlines()]
    assert [row["doc_id"] for row in rows] == list(range(12))
    assert sum(row["correct"] for row in rows) == round(12 * chosen.value)
    assert max(row["n_tokens"] for row in rows) <= 96, "max_new_tokens is obeyed"


def test_a_group_is_aggregated_by_lm_eval(stock: Mapping[str, Any], ours: Any) -> None:
    found = ours.variants[0].groups["both"]
    assert (found.tasks, found.n) == (("choice", "word"), 24)
    same(found, stock["groups"]["both"])
    report = (ours.folder / "report.md").read_text(encoding="utf-8")
    assert "flexible-extract" in report and "both" in report


def test_a_figure_is_a_row_of_the_table(ours: Any) -> None:
    rows = {(row["task"], row["quantity"]): row["value"] for row in ours.to_rows()}
    assert rows["both", "acc, none"] == ours.variants[0].groups["both"].metrics[0].value
    assert isinstance(ours.variants[0].eval["choice"].metrics[0], MetricValue)

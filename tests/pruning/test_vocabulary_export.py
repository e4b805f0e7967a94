"""A checkpoint with a smaller vocabulary is the same model with fewer rows: its logits are the whole model's, in every
family whose tokenizer can be trimmed.
"""

from __future__ import annotations

import json
import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file
from transformers import AutoTokenizer

from harness.core.errors import UnsupportedModelError, UsageError
from harness.core.types.pruning import PruningPlan
from pruning.checkpoint import open_model
from pruning.export import PLAN_COPY, export, predict_size
from pruning.families import FAMILIES
from pruning.plan_file import load_plan, save_plan
from pruning.record import read_record
from pruning.vocabulary import choose_tokens
from pruning.vocabulary_files import read_tokenizer, required_rows
from tests.support.families import with_both_heads
from tests.support.models import build_model, plain
from tests.support.pruned import compensated, masked_logits, plan_for

pytestmark = pytest.mark.slow
ROWS, SIZE = 1088, 576
TEXTS = ("Tom has 3 apples. How many?", "def add(a, b):\n    return a + b", "Überraschung – 漢字 🙂", "<|im_end|>")


def trimmed(plan: PruningPlan, folder: Path, size: int = SIZE) -> PruningPlan:
    model = open_model(folder)
    tokenizer = read_tokenizer(model)
    late = {number: number for number in range(model.shape.vocab_size)}  # so that numbers change
    keep = choose_tokens(tokenizer, [late], size, model.shape.vocab_size, required_rows(model, tokenizer))
    return replace(plan, vocabulary=keep, vocab_size=model.shape.vocab_size)


def logits(folder: Path, ids: torch.Tensor) -> torch.Tensor:
    with torch.no_grad():
        return plain(folder, dtype=torch.float32, attn_implementation="eager")(ids).logits


@pytest.mark.parametrize(
    ("model_type", "tie"), with_both_heads(sorted(name for name, family in FAMILIES.items() if not family.tower))
)
def test_rows_and_neurons_go_in_one_plan(model_type: str, tie: bool, tmp_path: Path) -> None:
    folder = build_model(model_type, tmp_path / "dense", tie=tie, shard_size="200KB")
    plan = trimmed(plan_for(folder), folder)
    made = export(open_model(folder), plan, tmp_path / "small")
    assert plan.vocabulary is not None
    ids = torch.randint(0, SIZE, (2, 24), generator=torch.Generator().manual_seed(0))
    keep = torch.from_numpy(plan.vocabulary).long()
    whole = masked_logits(folder, plan, keep[ids])[..., keep]
    torch.testing.assert_close(logits(made.path, ids), whole, rtol=1e-5, atol=1e-4)
    predicted = predict_size(open_model(folder), plan)
    assert (predicted.parameters, predicted.weight_bytes, predicted.record) == (
        made.parameters,
        made.weight_bytes,
        made.record,
    )
    without = predict_size(open_model(folder), replace(plan, vocabulary=None))
    assert without.parameters - made.parameters == (ROWS - SIZE) * 64 * (1 if made.shape.tied else 2)


@pytest.fixture(scope="module")
def small(random_model: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, PruningPlan]:
    """The random model with a smaller vocabulary and all its neurons."""
    plan = trimmed(plan_for(random_model, width=96), random_model)
    return export(open_model(random_model), plan, tmp_path_factory.mktemp("small") / "made").path, plan


def test_transformers_reads_the_tokenizer_that_was_written(small: tuple[Path, PruningPlan], random_model: Path) -> None:
    folder, plan = small
    whole, less = (AutoTokenizer.from_pretrained(path) for path in (random_model, folder))
    assert plan.vocabulary is not None and len(less) == SIZE
    for text in TEXTS:
        assert less.decode(less(text)["input_ids"]) == whole.decode(whole(text)["input_ids"])
    assert less.get_vocab() == {
        token: int(np.searchsorted(plan.vocabulary, number))
        for token, number in whole.get_vocab().items()
        if number in plan.vocabulary
    }
    assert (less.eos_token, less.pad_token) == (whole.eos_token, whole.pad_token)
    messages = [{"role": "user", "content": TEXTS[0]}]
    chats = [each.apply_chat_template(messages, tokenize=False) for each in (whole, less)]
    assert chats[0] == chats[1]
    ids = less(chats[1])["input_ids"]
    assert ids.count(less.eos_token_id) == whole(chats[0])["input_ids"].count(whole.eos_token_id) > 0


def test_the_record_the_card_and_the_plan_say_it(small: tuple[Path, PruningPlan]) -> None:
    folder, plan = small
    record = read_record(folder)
    assert record is not None and record["steps"][0]["vocabulary"] == [ROWS, SIZE]
    card = (folder / "README.md").read_text()
    assert f"Vocabulary {ROWS} -> {SIZE} entries" in card and f"vocabulary of {SIZE}" in card
    assert "FFN" not in card, "no neuron was removed"
    copy = load_plan(folder / PLAN_COPY)
    assert copy.vocabulary is not None and copy.vocab_size == ROWS
    assert np.array_equal(copy.vocabulary, plan.vocabulary)


def edited(folder: Path, name: str, **changes: Any) -> None:
    content = json.loads((folder / name).read_text())
    (folder / name).write_text(json.dumps({**content, **changes}))


def test_ids_in_every_file_are_numbered_anew_and_other_forms_left_out(random_model: Path, tmp_path: Path) -> None:
    dense = shutil.copytree(random_model, tmp_path / "dense")
    late = json.loads((dense / "tokenizer.json").read_text())["added_tokens"][0] | {"id": ROWS - 1, "content": "<late>"}
    whole = json.loads((dense / "tokenizer.json").read_text())
    gone = next(token for token, number in whole["model"]["vocab"].items() if number == ROWS - 1)
    merges = [merge for merge in whole["model"]["merges"] if "".join(merge) != gone]
    vocab = {token: number for token, number in whole["model"]["vocab"].items() if token != gone}
    model = {**whole["model"], "vocab": vocab, "merges": merges}
    edited(dense, "tokenizer.json", model=model, added_tokens=[*whole["added_tokens"], late])
    edited(dense, "config.json", eos_token_id=[ROWS - 1, 2], pad_token_id=0, unk_token_id=-1)
    edited(dense, "generation_config.json", eos_token_id=[2, ROWS - 1], suppress_tokens=[5], temperature=0.5)
    added = {"2": {"content": "<|im_end|>"}, str(ROWS - 1): {"content": "<late>"}}
    edited(dense, "tokenizer_config.json", added_tokens_decoder=added)
    for name in ("vocab.json", "added_tokens.json"):
        (dense / name).write_text("{}")
    (dense / "merges.txt").write_text("")
    plan = trimmed(plan_for(dense, width=96), dense)
    made = export(open_model(dense), plan, tmp_path / "small")
    last = SIZE - 1
    config, generation, settings, tokenizer = (
        json.loads((made.path / name).read_text())
        for name in ("config.json", "generation_config.json", "tokenizer_config.json", "tokenizer.json")
    )
    assert (config["eos_token_id"], config["pad_token_id"], config["unk_token_id"]) == ([last, 2], 0, -1)
    assert (generation["eos_token_id"], generation["suppress_tokens"]) == ([2, last], [5])
    assert settings["added_tokens_decoder"].keys() == {"2", str(last)}
    assert tokenizer["added_tokens"][-1]["id"] == last
    names = {file.name for file in made.path.iterdir()}
    assert not names & {"vocab.json", "merges.txt", "added_tokens.json"}


def test_compensated_columns_and_a_vocabulary_that_came_later(tmp_path: Path) -> None:
    """A plan's vocabulary does not have to be in the file that its re-fitted columns belong to."""
    dense, plan, plan_file = compensated("qwen2", tmp_path)
    narrow = export(open_model(dense), plan, tmp_path / "narrow", plan_file)
    both = export(open_model(dense), trimmed(plan, dense), tmp_path / "both", plan_file)
    columns = [load_file(made.path / "model.safetensors") for made in (narrow, both)]
    name = "model.layers.0.mlp.down_proj.weight"
    assert torch.equal(columns[0][name], columns[1][name])
    assert load_plan(both.path / PLAN_COPY).vocab_size == ROWS
    save_plan(trimmed(plan, dense), plan_file)
    with pytest.raises(UsageError, match="belongs to another plan"):
        export(open_model(dense), load_plan(plan_file), tmp_path / "again", plan_file)


def test_a_trimmed_model_can_be_pruned_and_trimmed_again(small: tuple[Path, PruningPlan], tmp_path: Path) -> None:
    folder, _ = small
    again = export(open_model(folder), trimmed(plan_for(folder), folder, 384), tmp_path / "again")
    assert again.record is not None
    assert [step.get("vocabulary") for step in again.record["steps"]] == [[ROWS, SIZE], [SIZE, 384]]
    assert again.shape.vocab_size == 384 and len(AutoTokenizer.from_pretrained(again.path)) == 384


def test_a_plan_of_another_vocabulary_or_with_a_gap_is_refused(random_model: Path, tmp_path: Path) -> None:
    plan = trimmed(plan_for(random_model), random_model)
    assert plan.vocabulary is not None
    with pytest.raises(UsageError, match="for a vocabulary of 9 rows"):
        export(open_model(random_model), replace(plan, vocab_size=9), tmp_path / "x")
    with pytest.raises(UsageError, match="lacks token 0"):
        export(open_model(random_model), replace(plan, vocabulary=plan.vocabulary[1:]), tmp_path / "x")
    assert not (tmp_path / "x").exists()


def test_a_plan_file_with_a_damaged_vocabulary_is_refused(random_model: Path, tmp_path: Path) -> None:
    plan, file = trimmed(plan_for(random_model), random_model), tmp_path / "plan.safetensors"
    assert plan.vocabulary is not None
    for vocabulary, rows in ((plan.vocabulary[::-1], ROWS), (plan.vocabulary, ROWS // 2), (plan.vocabulary, 0)):
        save_plan(replace(plan, vocabulary=vocabulary, vocab_size=rows), file)
        with pytest.raises(UsageError, match="not a pruning plan"):
            load_plan(file)


def test_towers_and_folders_without_tokenizer_json_are_refused(random_model: Path, tmp_path: Path) -> None:
    tower = build_model("gemma3", tmp_path / "tower")
    with pytest.raises(UnsupportedModelError, match="vision-language"):
        read_tokenizer(open_model(tower))
    bare = shutil.copytree(random_model, tmp_path / "bare", ignore=shutil.ignore_patterns("tokenizer.json"))
    with pytest.raises(UsageError, match=r"no tokenizer\.json"):
        read_tokenizer(open_model(bare))


def test_tokens_that_only_settings_name_stay(random_model: Path, tmp_path: Path) -> None:
    """By text or by number, in each of the files that transformers reads."""
    dense = shutil.copytree(random_model, tmp_path / "dense")
    text = {number: token for token, number in AutoTokenizer.from_pretrained(dense).get_vocab().items()}
    listed, mapped, extra, decoded = range(ROWS - 4, ROWS)
    decoder = {str(decoded): {"content": text[decoded], "special": False}, "x": {"content": "x"}}
    names = {"additional_special_tokens": [text[listed]], "extra_special_tokens": {"image": {"content": text[extra]}}}
    edited(dense, "tokenizer_config.json", added_tokens_decoder=decoder, **names)
    (dense / "special_tokens_map.json").write_text(json.dumps({"sep_token": {"content": text[mapped]}}))
    model = open_model(dense)
    tokenizer = read_tokenizer(model)
    named = {listed, mapped, extra, decoded}
    assert required_rows(model, tokenizer) == required_rows(open_model(random_model), tokenizer) | named
    keep = choose_tokens(tokenizer, [{}], SIZE, ROWS, required_rows(model, tokenizer))
    plan = replace(plan_for(dense, width=96), vocabulary=keep, vocab_size=ROWS)
    made = export(model, plan, tmp_path / "small")
    settings = json.loads((made.path / "tokenizer_config.json").read_text())
    assert list(settings["added_tokens_decoder"]) == [str(int(np.searchsorted(keep, decoded)))]


def unreadable(folder: Path) -> None:
    whole = json.loads((folder / "tokenizer.json").read_text())
    edited(folder, "tokenizer.json", model={**whole["model"], "merges": [["no", "pair"]]})


@pytest.mark.parametrize(
    ("spoil", "told"),
    [
        (unreadable, r"tokenizer\.json cannot be read \(.+\); get this file again"),
        (lambda m: edited(m, "tokenizer.json", model=None), r"tokenizer\.json cannot be read"),
        (lambda m: edited(m, "generation_config.json", sequence_bias=[[[5], -10.0]]), "sequence_bias, whose token ids"),
        (lambda m: edited(m, "generation_config.json", forced_decoder_ids=[[1, 5]]), "forced_decoder_ids, whose"),
    ],
)
def test_what_cannot_be_numbered_anew_is_refused_before_anything_is_written(
    spoil: Any, told: str, random_model: Path, tmp_path: Path
) -> None:
    dense = shutil.copytree(random_model, tmp_path / "dense")
    plan = trimmed(plan_for(dense, width=96), dense)
    spoil(dense)
    with pytest.raises(UnsupportedModelError, match=told):
        export(open_model(dense), plan, tmp_path / "small")
    assert not (tmp_path / "small").exists()

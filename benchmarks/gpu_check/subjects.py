"""The models that are measured: checkpoints of random weights or given ones, what is pruned from them, their prompts.

Speed and memory do not depend on the values of weights, so that random ones do where no network is.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from harness.core.errors import UsageError
from harness.core.files import atomic_path
from harness.core.types.calibration import CalibrationItem, CalibrationSet
from harness.core.types.pruning import ModelShape, NeuronScores, PruningPlan
from harness.engine.devices import device_name
from harness.models.registry import ALIASES
from harness.models.tokenizer import load_tokenizer
from harness.serving.workload import Workload, random_prompts
from pruning.checkpoint import ModelFolder, open_model
from pruning.export import export
from pruning.families import shape_of
from pruning.plan import PlanRequest, default_alignment, make_plan, pruned_width
from pruning.plan_file import load_plan, save_plan
from pruning.second_moments import layer_bytes

RATIOS = (0.2, 0.353)  # of 18944 neurons widths 15104 and 12288, of 8960 neurons 7168 and 5760
_SHARD = "4GB"
_SCALE = 0.05  # standard deviation of random weights: logits differ by more than the rounding of bfloat16
_SMALL = {
    "model_type": "qwen2",
    "hidden_size": 128,
    "num_hidden_layers": 3,
    "intermediate_size": 384,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "vocab_size": 2048,
    "max_position_embeddings": 512,
    "tie_word_embeddings": False,
}
SHAPES: Mapping[str, Mapping[str, Any]] = {
    "1.5b": ALIASES["qwen-1.5b"].config or {},
    "7b": ALIASES["qwen-7b"].config or {},
    "tiny": _SMALL,
}


@dataclass(frozen=True)
class Amount:
    """How much the parts do.

    prompts: of the calibration's target; general ones are twice as many. steps: of training. threads: CPU threads, None
    for all cores. engine_arg: vLLM's own options.
    """

    prompts: int = 48
    prompt_tokens: int = 200
    concurrency: tuple[int, ...] = (1, 32, 128)
    input_tokens: int = 256
    output_tokens: int = 128
    repeats: int = 3
    steps: int = 6
    threads: int | None = None
    engine_arg: Mapping[str, Any] = field(default_factory=dict)


TINY = Amount(
    prompts=4, prompt_tokens=24, concurrency=(1, 4), input_tokens=16, output_tokens=8, repeats=2, steps=2, threads=1
)


@dataclass(frozen=True)
class Subject:
    """One model and what is made of it.

    name: a key of SHAPES, or the name of a given folder. folder: what is made lies here. given: a checkpoint of the
    user's; None: random weights in the shape of this name.
    """

    name: str
    folder: Path
    amount: Amount
    given: Path | None = None

    def dense(self) -> ModelFolder:
        """The dense model; a random one is written first where it is not there yet."""
        path = self.given or self.folder / "dense"
        if not path.exists():
            write_random(path, SHAPES[self.name])
        return open_model(path)

    def width(self, ratio: float) -> int:
        """FFN width at a ratio of removed neurons; 0 is the dense model's."""
        whole = self._shape().intermediate_size
        return pruned_width(whole, ratio, default_alignment(whole))

    def variant_name(self, ratio: float) -> str:
        return f"width-{self.width(ratio)}" if ratio else "dense"

    def plan(self, ratio: float) -> Path:
        """A plan that removes random neurons, written where it is not there yet."""
        file = self.folder / f"{self.variant_name(ratio)}.plan.safetensors"
        if not file.exists():
            save_plan(random_plan(self.dense(), ratio), file)
        return file

    def checkpoint(self, ratio: float) -> ModelFolder:
        """The dense model at ratio 0, else the pruned checkpoint, exported where it is not there yet."""
        folder = self.folder / self.variant_name(ratio)
        if not ratio:
            return self.dense()
        return open_model(folder) if folder.exists() else export(self.dense(), load_plan(self.plan(ratio)), folder)

    def calibration(self) -> CalibrationSet:
        """Random tokens of between half and one and a half times the amount's length."""
        dense, count = self.dense(), self.amount.prompts
        drawn = random_prompts(3 * count, self.amount.prompt_tokens, dense.shape.vocab_size)
        items = (CalibrationItem(i < count, ids, 0, len(ids)) for i, ids in enumerate(drawn))
        return CalibrationSet(
            model=self.name,
            model_hash=dense.fingerprint,
            target_source="random tokens",
            distractor_sources=("random tokens",),
            tokens="all",
            items=tuple(items),
        )

    def workload(self) -> Workload:
        """Prompts of random words, as many as go on at a time; answers have a fixed length."""
        amount, words = self.amount, word_tokens(self.dense())
        drawn = random_prompts(max(amount.concurrency), amount.input_tokens, len(words))
        prompts = tuple(tuple(words[i] for i in prompt) for prompt in drawn)
        return Workload(f"random words, about {amount.input_tokens} tokens", prompts, amount.output_tokens)

    def disk_bytes(self) -> int:
        """What the parts write: every checkpoint, one merged after training, two layers' second moments.

        0 where they have been there already.
        """
        if self.folder.exists():
            return 0
        shape, layers = self._shape(), self._shape().num_hidden_layers
        counts = [shape.pruned_parameters((self.width(ratio),) * layers) for ratio in (*RATIOS, RATIOS[-1])]
        dense = 0 if self.given else shape.parameters
        return (dense + sum(counts)) * shape.dtype_bytes + 2 * layer_bytes(shape.intermediate_size)

    def _shape(self) -> ModelShape:
        return open_model(self.given).shape if self.given else shape_of(_config(SHAPES[self.name]))


def _config(sizes: Mapping[str, Any]) -> dict[str, Any]:
    return {**sizes, "dtype": "bfloat16", "initializer_range": _SCALE, "eos_token_id": 0, "bos_token_id": 0}


def write_random(folder: Path, sizes: Mapping[str, Any]) -> None:
    """A checkpoint of random BF16 weights in shards, with the embedded model's tokenizer; completely or not."""
    import torch
    from transformers import AutoConfig, AutoModelForCausalLM, AutoTokenizer

    config = _config(sizes)
    torch.manual_seed(0)
    with torch.device(device_name()):
        model = AutoModelForCausalLM.from_config(
            AutoConfig.for_model(**{**config, "dtype": torch.bfloat16}), dtype=torch.bfloat16
        )
    with atomic_path(folder) as scratch:
        model.save_pretrained(scratch, max_shard_size=_SHARD)
        AutoTokenizer.from_pretrained(ALIASES["tiny-math"].folder).save_pretrained(scratch)


def word_tokens(model: ModelFolder) -> list[int]:
    """Tokens that are a word with its blank: a text of them gives the same tokens again to a server."""
    vocabulary = load_tokenizer(model).get_vocab()
    return sorted(number for token, number in vocabulary.items() if re.fullmatch("[Ġ▁][a-z]+", token))


def random_plan(dense: ModelFolder, ratio: float) -> PruningPlan:
    shape = dense.shape
    table = np.random.default_rng(0).random((shape.num_hidden_layers, shape.intermediate_size), dtype=np.float32)
    scores = NeuronScores({"rms": table}, dense.path.name, dense.fingerprint, "all", "random", "random", 0.0)
    return make_plan(scores, PlanRequest(ratio, alignment=default_alignment(shape.intermediate_size)))


def subjects_of(names: Sequence[str], given: Sequence[Path], folder: Path, amount: Amount) -> list[Subject]:
    """Random models of these shapes, then the given checkpoints.

    Raises UsageError for a checkpoint that cannot be opened, or whose folder has the name of another subject.
    """
    found = [Subject(name, folder / name, amount) for name in names]
    for path in given:
        open_model(path)
        name = path.resolve().name
        if name in [subject.name for subject in found]:
            raise UsageError(f"{path}: another model is called {name} too; rename one of the folders")
        found.append(Subject(name, folder / name, amount, path))
    return found

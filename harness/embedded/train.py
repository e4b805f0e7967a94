"""Trains the embedded model from scratch: `python -m harness.embedded.train --out DIR`.

Qwen2 architecture, Muon for the matrices and AdamW for the rest, FP32 on one thread, weights written in BF16.
"""

from __future__ import annotations

import itertools
import json
import time
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import click

from harness.embedded.corpus import MIXTURE, TrainingExample, examples
from harness.embedded.muon import Muon
from harness.embedded.tokenizer import train_tokenizer


@dataclass(frozen=True)
class TrainConfig:
    hidden_size: int = 128
    num_hidden_layers: int = 4
    intermediate_size: int = 640
    num_attention_heads: int = 4
    num_key_value_heads: int = 2
    vocab_size: int = 1088
    steps: int = 2600
    examples_per_step: int = 64
    micro_batches: int = 4
    muon_lr: float = 0.02
    adamw_lr: float = 3e-3
    decay_from: float = 0.4  # share of the steps after which the learning rates fall linearly to zero
    prompt_weight: float = 0.1
    seed: int = 0
    threads: int = 1


def build_model(config: TrainConfig, tokenizer: Any) -> Any:
    import torch
    from transformers import Qwen2Config, Qwen2ForCausalLM

    torch.manual_seed(config.seed)
    return Qwen2ForCausalLM(
        Qwen2Config(
            hidden_size=config.hidden_size,
            num_hidden_layers=config.num_hidden_layers,
            intermediate_size=config.intermediate_size,
            num_attention_heads=config.num_attention_heads,
            num_key_value_heads=config.num_key_value_heads,
            vocab_size=config.vocab_size,
            max_position_embeddings=512,
            tie_word_embeddings=True,
            bos_token_id=None,
            eos_token_id=tokenizer.eos_token_id,
            pad_token_id=tokenizer.pad_token_id,
        )
    )


def encode(tokenizer: Any, example: TrainingExample, prompt_weight: float) -> tuple[list[int], list[float]]:
    """Token ids and the loss weight of each; the closing <|im_end|> is part of the answer, so that stopping is
    learnt.
    """
    prompt: list[int] = []
    if example.prompt:
        chat = [{"role": "user", "content": example.prompt}]
        prompt = tokenizer.apply_chat_template(chat, add_generation_prompt=True, return_dict=False)
    answer = [*tokenizer(example.answer)["input_ids"], tokenizer.eos_token_id]
    return prompt + answer, [prompt_weight] * len(prompt) + [MIXTURE[example.kind][1]] * len(answer)


def pad(rows: list[tuple[list[int], list[float]]], pad_id: int) -> tuple[Any, Any]:
    """ids int64 [rows, longest] and weights float32 of the same shape, 0 on the padding."""
    import torch

    longest = max(len(ids) for ids, _ in rows)
    ids = torch.tensor([ids + [pad_id] * (longest - len(ids)) for ids, _ in rows])
    weights = torch.tensor([weight + [0.0] * (longest - len(weight)) for _, weight in rows])
    return ids, weights


def weighted_loss(model: Any, ids: Any, weights: Any) -> Any:
    """Sum of the weighted token losses; right padding needs no mask under a causal model."""
    import torch.nn.functional as F

    logits = model(input_ids=ids).logits[:, :-1]
    losses = F.cross_entropy(logits.flatten(0, 1), ids[:, 1:].flatten(), reduction="none")
    return (losses * weights[:, 1:].flatten()).sum()


def optimisers(model: Any, config: TrainConfig) -> list[Any]:
    """Muon for the matrices of the layers, AdamW for embeddings, norms and biases, as Muon's authors advise."""
    import torch

    matrices = [p for n, p in model.named_parameters() if p.ndim == 2 and "embed" not in n]
    rest = [p for n, p in model.named_parameters() if p.ndim != 2 or "embed" in n]
    return [
        Muon(matrices, lr=config.muon_lr),
        torch.optim.AdamW(rest, lr=config.adamw_lr, betas=(0.9, 0.98), weight_decay=0.01),
    ]


def learning_rate_factor(step: int, config: TrainConfig) -> float:
    warmup = min(1.0, (step + 1) / 40)
    left = (config.steps - step) / (config.steps * (1 - config.decay_from))
    return min(warmup, 1.0, left)


def train(model: Any, tokenizer: Any, config: TrainConfig) -> dict[str, Any]:
    """Trains in place; returns tokens seen, seconds and the last mean loss per answer weight."""
    stream, steppers = examples(config.seed), optimisers(model, config)
    base = [stepper.param_groups[0]["lr"] for stepper in steppers]
    started, cpu, tokens, mean = time.perf_counter(), time.process_time(), 0, 0.0
    for step in range(config.steps):
        rows = [encode(tokenizer, e, config.prompt_weight) for e in itertools.islice(stream, config.examples_per_step)]
        total = sum(sum(weights) for _, weights in rows)
        rows.sort(key=lambda row: len(row[0]))
        loss = 0.0
        for part in _batches(rows, config):
            part_loss = weighted_loss(model, *pad(part, tokenizer.pad_token_id)) / total
            part_loss.backward()
            loss += part_loss.item()
        for stepper, lr in zip(steppers, base, strict=True):
            stepper.param_groups[0]["lr"] = lr * learning_rate_factor(step, config)
            stepper.step()
            stepper.zero_grad()
        tokens += sum(len(ids) for ids, _ in rows)
        mean = 0.98 * mean + 0.02 * loss if step else loss
        if step % 50 == 0:
            click.echo(f"step {step} loss {mean:.4f} tokens {tokens} {time.perf_counter() - started:.0f} s", err=True)
    return {
        "tokens": tokens,
        "seconds": time.perf_counter() - started,
        "cpu_seconds": time.process_time() - cpu,
        "loss": mean,
    }


def _batches(rows: list[Any], config: TrainConfig) -> list[list[Any]]:
    size = len(rows) // config.micro_batches
    return [rows[i : i + size] for i in range(0, len(rows), size)]


def save(model: Any, tokenizer: Any, config: TrainConfig, figures: dict[str, Any], out: Path) -> None:
    import torch

    model.to(torch.bfloat16).save_pretrained(out)
    tokenizer.save_pretrained(out)
    (out / "training.json").write_text(json.dumps({"config": asdict(config), **figures}, indent=1) + "\n")


@click.command()
@click.option("--out", type=click.Path(path_type=Path), required=True, help="Folder for weights and tokenizer.")
@click.option("--steps", default=TrainConfig.steps, show_default=True)
@click.option("--seed", default=TrainConfig.seed, show_default=True)
@click.option("--intermediate-size", default=TrainConfig.intermediate_size, show_default=True)
@click.option("--threads", default=TrainConfig.threads, show_default=True)
def main(out: Path, **settings: Any) -> None:
    import torch

    config = TrainConfig(**settings)
    torch.set_num_threads(config.threads)
    sample = itertools.islice(examples(config.seed), 20_000)
    tokenizer = train_tokenizer((f"user\n{e.prompt}\nassistant\n{e.answer}" for e in sample), config.vocab_size)
    model = build_model(config, tokenizer)
    figures = train(model, tokenizer, config)
    save(model, tokenizer, config, figures, out)


if __name__ == "__main__":
    main()

"""Merges a trained state into a plain checkpoint: tensor by tensor, summed in FP32, stored in the checkpoint's
dtype.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Any

from harness.core.bounded_read import read_json_object
from harness.core.dtypes import BY_CODE, bits_of
from harness.core.errors import MeasurementError, UnsupportedModelError
from harness.core.safetensors_stream import Array, Entry, as_array, finite, iter_blocks, read_entries, write_entries

_ADAPTER = "adapter_model.safetensors"
_HEADS = ("lm_head.weight", "embed_out.weight")
_EMBEDDINGS = ("embed_tokens.weight", "wte.weight", "embed_in.weight")
_PREFIX = "base_model.model."  # of tensor names in peft files


def merge(shards: Sequence[Path], state: Path, out: Path) -> None:
    """Writes every shard to the folder `out` with what was trained: the adapter of `state` added, or its weights.

    An adapter adds alpha / r * B A to a weight (Hu et al. 2021, arXiv 2106.09685).

    Raises:
        MeasurementError: A trained weight is not finite.
        UnsupportedModelError: The state does not fit the shards.
    """
    with ExitStack() as stack:
        trained = _open_adapter(state, stack) if (state / _ADAPTER).exists() else _open_weights(state, stack)
        for shard in shards:
            _write(shard, out / shard.name, trained)
    if unused := trained.unused():
        raise UnsupportedModelError(
            f"{state} holds {unused[0]}, which the checkpoint does not have; train from this checkpoint again"
        )


class _Trained:
    """A state's changes to a checkpoint's tensors, each read on demand."""

    def __init__(self, tensors: dict[str, Any], adapter: dict[str, Any] | None = None) -> None:
        self.tensors, self.adapter, self.used = tensors, adapter, set[str]()

    def __call__(self, name: str, original: Any) -> Any:
        """The trained FP32 tensor; None where the original stays."""
        found = next((key for key in self._keys(name) if key in self.tensors), None)
        if found is None:
            return None
        self.used.add(found)
        return (
            original().float() + self.tensors[found](self.adapter)
            if self.adapter
            else self.tensors[found](None).float()
        )

    def _keys(self, name: str) -> list[str]:
        """Names under which a state may hold a tensor: as it is, below a body prefix that older checkpoints omit, or
        tied.
        """
        tied = [key for key in self.tensors if key.endswith(_EMBEDDINGS)] if name in _HEADS and not self.adapter else []
        return [name, *(f"{body}.{name}" for body in ("transformer", "model", "gpt_neox")), *tied]

    def unused(self) -> list[str]:
        """Trained tensors that no shard has; a tied head, which sharded training stores beside its embedding, is
        allowed.
        """
        return sorted(key for key in self.tensors.keys() - self.used if key not in _HEADS)


def _open_weights(state: Path, stack: ExitStack) -> _Trained:
    from safetensors import safe_open

    tensors: dict[str, Any] = {}
    for file in sorted(state.glob("model*.safetensors")):
        opened = stack.enter_context(safe_open(file, framework="pt"))
        names = list(opened.keys())
        tensors |= {name: lambda _, name=name, opened=opened: opened.get_tensor(name) for name in names}
    if not tensors:
        raise UnsupportedModelError(f"{state} holds neither an adapter nor weights; train again")
    return _Trained(tensors)


def _open_adapter(state: Path, stack: ExitStack) -> _Trained:
    from safetensors import safe_open

    config = read_json_object(state / "adapter_config.json")
    opened = stack.enter_context(safe_open(state / _ADAPTER, framework="pt"))
    names = list(opened.keys())
    stems = [name.removesuffix(".lora_A.weight") for name in names if name.endswith(".lora_A.weight")]

    def change(stem: str, adapter: Any) -> Any:
        up, down = (opened.get_tensor(f"{stem}.lora_{side}.weight").float() for side in "BA")
        product = (up @ down) * (adapter["lora_alpha"] / adapter["r"])
        return product.T if adapter.get("fan_in_fan_out") else product

    return _Trained(
        {f"{stem.removeprefix(_PREFIX)}.weight": lambda adapter, stem=stem: change(stem, adapter) for stem in stems},
        config,
    )


def _write(source: Path, destination: Path, trained: _Trained) -> None:
    entries, metadata = read_entries(source)
    write_entries(destination, entries, metadata or {"format": "pt"}, lambda entry: _blocks(source, entry, trained))


def _blocks(source: Path, entry: Entry, trained: _Trained) -> Iterator[Array]:
    from safetensors import safe_open

    def original() -> Any:
        with safe_open(source, framework="pt") as file:
            return file.get_tensor(entry.name)

    found = trained(entry.name, original)
    if found is None:
        yield from iter_blocks(as_array(source, entry))
        return
    if tuple(found.shape) != entry.shape:
        raise UnsupportedModelError(
            f"{entry.name} was trained as {list(found.shape)} and is {list(entry.shape)}; train again"
        )
    for block in iter_blocks(_as_stored(found, entry.dtype)):
        if not finite(block, entry.dtype):
            raise MeasurementError(
                f"{entry.name} is not finite after training; give a lower --learning-rate, and --fresh"
            )
        yield block


def _as_stored(tensor: Any, code: str) -> Array:
    """The tensor in a checkpoint's dtype, as unsigned integers of its item size."""
    import torch

    dtype = BY_CODE[code]
    if dtype.exponent is None:
        raise UnsupportedModelError(f"a checkpoint in {code} cannot be trained; convert it to BF16 or FP32 first")
    return bits_of(tensor.to(getattr(torch, dtype.name)))

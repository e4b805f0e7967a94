"""Where the layers of a model come from: a model that is in memory, or a checkpoint's shards, one layer at a time."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np

from harness.core.dtypes import tensor_of
from harness.core.errors import UnsupportedModelError
from harness.core.safetensors_stream import Entry, as_array
from harness.core.types.calibration import CalibrationSet
from pruning.activations import down_weight
from pruning.checkpoint import ModelFolder, read_tensor
from pruning.families import Family, submodule
from pruning.loader import without_weights
from pruning.shards import Shard
from pruning.vision_language import is_beside


class LayerSource(Protocol):
    """A causal model whose layers are used in turn.

    Attributes:
        model: transformers' model; its layers may hold weights only within `layer`.
        device: Where token ids go.
        streamed: Whether a layer's weights are read when its turn comes and dropped afterwards.
    """

    @property
    def model(self) -> Any: ...
    @property
    def family(self) -> Family: ...
    @property
    def device(self) -> Any: ...
    @property
    def streamed(self) -> bool: ...

    def embed(self, ids: Any) -> Any:
        """[batch, tokens] -> hidden states [batch, tokens, hidden_size] before the first layer."""

    def layer(self, index: int) -> Any:
        """A context in which the layer's module has its weights."""


def widths(source: LayerSource) -> list[int]:
    """intermediate_size of every layer."""
    return [down_weight(layer, source.family).shape[1] for layer in submodule(source.model, source.family.layers)]


@dataclass(frozen=True)
class InMemory:
    """A whole model on the CPU, on a GPU, or spread over several by accelerate, whose hooks move the inputs."""

    model: Any
    family: Family
    streamed: bool = False

    def __post_init__(self) -> None:
        check_finite(self.model.named_parameters())

    @property
    def device(self) -> Any:
        return self.model.device

    def embed(self, ids: Any) -> Any:
        return self.model.get_input_embeddings()(ids)

    @contextmanager
    def layer(self, index: int) -> Iterator[Any]:
        yield submodule(self.model, self.family.layers)[index]


class FromShards:
    """A model of which the shards are read as they are needed: of the embedding only the rows of the calibration's
    tokens, of the LM head nothing.
    """

    streamed = True

    def __init__(self, folder: ModelFolder, dtype: Any, device: str, calibration: CalibrationSet) -> None:
        import torch

        self.family, self.dtype, self.device = folder.family, dtype, torch.device(device)
        self.model = without_weights(folder, dtype, device)
        self.stack = submodule(self.model, self.family.layers)
        names = [name for name, _ in self.model.named_parameters()]
        self.places = _places(folder, names)
        embedding = self._embedding_name()
        for name in names:
            if name != embedding and self._is_around_layers(name):
                self._put(name, self._read(name))
        tokens = {0, *(token for item in calibration.items for token in item.token_ids)}  # 0 is padding
        self._put_rows(embedding, np.array(sorted(tokens)))

    def _embedding_name(self) -> str:
        embedding = self.model.get_input_embeddings()
        return next(f"{name}.weight" for name, module in self.model.named_modules() if module is embedding)

    def _is_around_layers(self, name: str) -> bool:
        """Whether a parameter is used before or after the layers: not of them, of the LM head or of a vision tower."""
        tower = self.family.tower
        below_body = name.startswith(f"{self.family.body}.") and self.family.below_layer(name) is None
        return below_body and not (tower and is_beside(tower, name))

    def _read(self, name: str) -> Any:
        return read_tensor(*self.places[name]).to(device=self.device, dtype=self.dtype)

    def _put(self, name: str, tensor: Any) -> None:
        import torch

        check_finite([(name, tensor)])
        path, _, attribute = name.rpartition(".")
        setattr(self.model.get_submodule(path), attribute, torch.nn.Parameter(tensor, requires_grad=False))

    def _put_rows(self, name: str, rows: Any) -> None:
        """The embedding's rows of some tokens, which `embed` then looks up by their position."""
        import torch

        shard, entry = self.places[name]
        found = tensor_of(np.asarray(as_array(shard.path, entry)[rows]), entry.dtype)
        self._put(name, found.to(device=self.device, dtype=self.dtype))
        self.rows = torch.from_numpy(rows).to(self.device)
        self.model.get_input_embeddings().padding_idx = None  # a number of the whole vocabulary

    def embed(self, ids: Any) -> Any:
        import torch

        return self.model.get_input_embeddings()(torch.searchsorted(self.rows, ids))

    @contextmanager
    def layer(self, index: int) -> Iterator[Any]:
        module, prefix = self.stack[index], f"{self.family.layers}.{index}."
        empty = dict(module.state_dict())
        tensors = {name: self._read(prefix + name) for name in empty}
        check_finite((prefix + name, tensor) for name, tensor in tensors.items())
        module.load_state_dict(tensors, assign=True)
        del tensors
        try:
            yield module
        finally:
            module.load_state_dict(empty, assign=True)


def _places(folder: ModelFolder, names: Iterable[str]) -> Mapping[str, tuple[Shard, Entry]]:
    """Where each parameter lies; a checkpoint of the body alone leaves out the body's prefix."""
    wanted, found = set(names), {}
    for shard in folder.shards:
        for entry in shard.entries:
            own = folder.family.own_name(entry.name)
            found[own if own in wanted else f"{folder.family.body}.{own}"] = shard, entry
    return found


def check_finite(tensors: Iterable[tuple[str, Any]]) -> None:
    """Raises UnsupportedModelError for the first of these that holds NaN or infinity; one copy to the host in all."""
    import torch

    named = list(tensors)
    if not named:
        return
    first = named[0][1].device
    finite = torch.stack([torch.isfinite(tensor).all().to(first) for _, tensor in named]).tolist()
    if not all(finite):
        name = named[finite.index(False)][0]
        raise UnsupportedModelError(f"weight {name} holds NaN or infinity; the checkpoint is damaged, get it again")

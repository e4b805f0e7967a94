"""How far a model with changed layers is from the dense one: KL(dense || changed) on held-out texts of the task.

The dense model reads the texts once. Every measurement starts from its hidden states before the first changed layer.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from functools import partial
from typing import Any

import numpy as np

from harness.core.errors import UsageError
from harness.core.types.arrays import IndexArray
from harness.core.types.calibration import CalibrationItem
from pruning.activations import down_weight
from pruning.families import submodule
from pruning.layer_source import InMemory, widths
from pruning.layer_walk import LayerWalk, replaced_forwards
from pruning.missing_attention import without_attention
from pruning.narrowed import call, narrowed, resized
from pruning.obs import refit
from pruning.search.choices import LayerChoice

_ROWS = 256  # places whose next-token distributions are computed at a time
_COLUMN_BYTES = 2 << 30  # of re-fitted columns that are kept for later measurements


class DamageProbe:
    """The dense model in memory, of which layers are changed for the time of one measurement.

    Memory besides the model: 4 bytes * (tokens of all texts * hidden_size * (layers + 1) + scored tokens *
    vocab_size), and at most 2 GiB of re-fitted columns.

    Args:
        source: The dense model.
        texts: What it is judged on: the tokens [start, stop) of each text, given all tokens before them. These texts
            should not be among those that neurons were scored and columns are re-fitted on; the pipeline draws them
            with another seed and leaves out what the calibration set holds.
        order: Neurons of each layer, the one that is removed last first (`pruning.plan.removal_order`).
        second_moment: layer -> H [F, F], on which the columns that stay are re-fitted.

    Attributes:
        layers: How many the model has.
        whole: What every layer of the dense model is.
        tokens: How many are scored.

    Raises UsageError where no text has a token with another one before it.
    """

    def __init__(
        self,
        source: InMemory,
        texts: Sequence[CalibrationItem],
        order: Sequence[IndexArray],
        second_moment: Callable[[int], Any],
    ) -> None:
        self.source, self.order, self.second_moment = source, order, second_moment
        self.stack = submodule(source.model, source.family.layers)
        self.layers, self.whole = len(self.stack), LayerChoice(widths(source)[0])
        items = [item for text in texts if (item := _predicting(text))]
        if not items:
            raise UsageError("no held-out text has a scored token that follows another one; choose another task")
        self.tokens = sum(item.stop - item.start for item in items)
        self._read(LayerWalk(source, items))
        weight = down_weight(self.stack[0], source.family)
        self.columns = functools.lru_cache(max(1, _COLUMN_BYTES // (4 * weight.numel())))(self._columns)

    def on(self, texts: Sequence[CalibrationItem]) -> DamageProbe:
        """A probe of the same model on other texts."""
        return DamageProbe(self.source, texts, self.order, self.second_moment)

    def nats(self, choices: Sequence[LayerChoice]) -> float:
        """KL(dense || changed) per scored token, over the whole vocabulary.

        Neurons are removed in the order of their scores. The down projection's columns that stay are re-fitted on the
        layer's second moments. Hidden states pass over a removed layer, and over attention that is left out, unchanged.
        The dense weights are back afterwards.

        Args:
            choices: What each layer becomes.

        Returns:
            Nats; infinite where the changed model overflows.
        """
        import torch

        changed = [layer for layer, choice in enumerate(choices) if choice != self.whole]
        if not changed:
            return 0.0
        with torch.inference_mode():
            states = self.states[changed[0]]
            for layer in range(changed[0], self.layers):
                if not choices[layer].removed:
                    with self._changed(layer, choices[layer]) as changed_layer:
                        states = self._after(layer, states, changed_layer)
            found = self._divergence(self._scored(states)) / self.tokens
        return found if math.isfinite(found) else math.inf

    def _read(self, walk: LayerWalk) -> None:
        """The dense model's states before each layer and after the last, and its log-probabilities."""
        import torch

        self.batches = walk.batches
        with torch.inference_mode():
            self.states = [[walk.hidden.read(i, self.source.device) for i in range(len(self.batches))]]
            for layer in range(self.layers):
                self.states.append(self._after(layer, self.states[-1], self.stack[layer]))
            rows = self._scored(self.states[-1])
            self.dense = [self._log_probabilities(part) for part in rows.split(_ROWS)]

    def _after(self, layer: int, states: Sequence[Any], module: Callable[..., Any]) -> list[Any]:
        """The states of every batch after a layer, which is called as `module`."""
        found = []
        for batch, hidden in zip(self.batches, states, strict=True):
            arguments, named = batch.calls[layer]
            found.append(module(hidden, *arguments, **named))
        return found

    def _scored(self, states: Sequence[Any]) -> Any:
        """[scored tokens, hidden_size]: after the last layer, at the place before each scored token."""
        import torch

        pairs = zip(self.batches, states, strict=True)
        rows = [h.flatten(0, 1).index_select(0, batch.scored_on(h.device).positions) for batch, h in pairs]
        return torch.cat([part.to(rows[0].device) for part in rows])

    def _log_probabilities(self, rows: Any) -> Any:
        """[places, vocab_size] float32 of states after the last layer: all that the model does after its layers,
        where the layers themselves hand on these states.
        """
        import torch

        ids = torch.zeros(1, len(rows), dtype=torch.long, device=self.source.device)
        with replaced_forwards(self.stack, lambda *_arguments, **_named: rows.unsqueeze(0)):
            logits = self.source.model(input_ids=ids, use_cache=False).logits[0]
        return logits.float().log_softmax(dim=-1)

    def _divergence(self, rows: Any) -> float:
        """Sum over the scored tokens of KL(dense || changed), in float64."""
        total = 0.0
        for dense, part in zip(self.dense, rows.split(_ROWS), strict=True):
            terms = dense.exp() * (dense - self._log_probabilities(part))
            total += float(terms.sum(dim=-1).double().sum())
        return max(0.0, total) if math.isfinite(total) else math.inf

    @contextmanager
    def _changed(self, layer: int, choice: LayerChoice) -> Iterator[Callable[..., Any]]:
        """How the layer is called as this choice."""
        module, family = self.stack[layer], self.source.family
        with without_attention(module, not choice.attention):
            if choice.width == self.whole.width:
                yield module
                return
            keep, fitted = self.columns(layer, choice.width)
            tensors = narrowed(module, family, keep, {family.down_cut.name: fitted})
            with resized(module, tensors):
                yield partial(call, module, tensors)

    def _columns(self, layer: int, width: int) -> tuple[IndexArray, Any]:
        """The neurons that stay, sorted, and the down projection that is re-fitted on them, as stored."""
        import torch

        weight, keep = down_weight(self.stack[layer], self.source.family), np.sort(self.order[layer][:width])
        stays = torch.from_numpy(keep).long().to(weight.device)
        fitted = refit(weight, self.second_moment(layer).to(weight.device), stays).to(weight.dtype)
        return keep, fitted if self.source.family.down_cut.axis == 1 else fitted.T


def _predicting(text: CalibrationItem) -> CalibrationItem | None:
    """The text with the places that predict its scored tokens in place of these tokens; None where there are none."""
    item = replace(text, target=True, start=max(text.start - 1, 0), stop=text.stop - 1)
    return item if item.start < item.stop else None

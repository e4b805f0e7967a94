"""Second moments layer by layer through the pruned model: each layer sees the outputs of the pruned layers before it.

Every layer runs twice, once to be measured and once pruned (as in SparseGPT, arXiv 2301.00774, and SlimGPT, arXiv
2412.18110).
"""

from __future__ import annotations

from contextlib import ExitStack
from typing import Any

from pruning.activations import down_weight
from pruning.layer_source import LayerSource, widths
from pruning.layer_walk import LayerWalk
from pruning.second_moments import LayerMoment, SecondMoments, token_weights


class LayerwiseRefit:
    """Goes through the layers of `source` once, in order, and replaces their down projections.

    moments: What is measured; its folder takes hidden states that are too large for the memory.
    """

    def __init__(self, source: LayerSource, moments: SecondMoments) -> None:
        weights = token_weights(moments.calibration, moments.general_weight)
        items = [item for item in moments.calibration.items if weights[item.target] > 0]
        self.source, self.moments = source, moments
        self.walk, self.loaded = LayerWalk(source, items, moments.folder), ExitStack()

    def second_moment(self, layer: int) -> Any:
        """H [F, F] float32 of this layer, given the pruned layers before it; its weights stay until `prune`."""
        self.module, moment = self.loaded.enter_context(self.source.layer(layer)), LayerMoment(self.moments, layer)
        with self.walk.observing(moment.add):
            self.walk.forward(self.module, advance=False)
        return moment.found

    def prune(self, keep: Any, fitted: Any) -> None:
        """Sets the layer's down projection to the re-fitted columns [hidden, kept] and the rest to zero, then
        advances.
        """
        import torch

        with torch.inference_mode():
            weight = down_weight(self.module, self.source.family)
            weight.zero_()
            weight[:, keep.to(weight.device)] = fitted.to(weight)
        if self.walk.layer + 1 < len(widths(self.source)):
            self.walk.forward(self.module)
        else:
            self.walk.hidden.remove()
        self.loaded.close()

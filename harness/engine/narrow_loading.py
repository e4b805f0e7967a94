"""Whether the installed vLLM loads the leading part of weights that are wider than config.json says.

It is no documented behaviour. `tests/harness/engine/test_elastic.py` compares whole engines; this asks the loader's own
functions, without an engine.
"""

from __future__ import annotations

from types import SimpleNamespace


def loads_leading_part() -> bool:
    """Whether vLLM's loader of unquantised linear layers takes the first rows (gate and up) and the first columns
    (down) of a wider tensor. Imports vLLM, which takes seconds.
    """
    import torch
    from vllm.model_executor.parameter import ModelWeightParameter

    wide = torch.arange(24.0).reshape(6, 4)
    gate_up, down = torch.zeros(4, 4), torch.zeros(6, 2)
    place = {"output_dim": 0, "input_dim": 1, "tp_rank": 0, "tp_size": 1}
    try:
        for part in range(2):
            ModelWeightParameter.load_merged_column_weight(
                SimpleNamespace(data=gate_up, **place), wide, shard_offset=2 * part, shard_size=2, num_heads=1
            )
        ModelWeightParameter.load_row_parallel_weight(SimpleNamespace(data=down, **place), wide)
    except Exception:  # a loader that refuses the shape, or that asks for what this parameter has not
        return False
    return torch.equal(gate_up, torch.cat([wide[:2], wide[:2]])) and torch.equal(down, wide[:, :2])

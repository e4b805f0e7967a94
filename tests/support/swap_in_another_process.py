"""MODEL PLAN ...: answers of an engine in its own process after each plan, dense, and after one more swap and back; as
JSON.
"""

import json
import sys
from pathlib import Path

from harness.engine.weight_swap import restore, swap, swapped
from harness.engine.weight_swap_worker import WORKER

if __name__ == "__main__":
    from vllm import LLM

    from tests.support.engines import SMALL, answers

    model, *plans = map(Path, sys.argv[1:])
    llm = LLM(
        str(model),
        dtype="float32",
        enforce_eager=True,
        max_model_len=SMALL.max_model_len,
        kv_cache_memory_bytes=SMALL.kv_cache_bytes,
        worker_extension_cls=WORKER,
    )
    found = []
    for plan in plans:
        swap(llm, plan)
        found.append(answers(llm))
    restore(llm)
    found.append(answers(llm))
    with swapped(llm, plans[0]):
        answers(llm)
    print(json.dumps([*found, answers(llm)]))

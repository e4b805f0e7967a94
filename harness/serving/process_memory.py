"""Memory of one engine on one model: measured in a process of its own, as engines in one process share what they have
loaded.
"""

from __future__ import annotations

import json
import re
import subprocess
import sys
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from harness.core.errors import MeasurementError
from harness.engine.devices import device_name
from harness.engine.memory_budget import EngineSettings
from harness.engine.vllm_engine import engine, weight_bytes
from harness.serving.timing import offline_round
from harness.serving.workload import Workload
from pruning.checkpoint import ModelFolder, open_model


@dataclass(frozen=True)
class EngineMemory:
    """After one round of requests: main memory of the process on a CPU; on CUDA device memory of tensors, over all GPUs
    of the engine. Weights None on a CPU.
    """

    resident_bytes: int
    peak_bytes: int
    engine_weight_bytes: int | None


def footprint(model: ModelFolder, config: EngineSettings, workload: Workload, concurrency: int) -> EngineMemory:
    """Starts an engine for it; raises MeasurementError where that fails."""
    task = json.dumps(
        {"model": str(model.path), "config": asdict(config), "workload": asdict(workload), "concurrency": concurrency}
    )
    made = subprocess.run(
        [sys.executable, "-m", "harness.serving.process_memory"], input=task, capture_output=True, text=True
    )
    if made.returncode:
        said = made.stderr.strip().splitlines() or [f"exit code {made.returncode}"]
        raise MeasurementError(f"no engine on {model.path} in a process of its own: {said[-1]}")
    return EngineMemory(**json.loads(made.stdout.splitlines()[-1]))


def _measured(model: ModelFolder, config: EngineSettings, workload: Workload, concurrency: int) -> EngineMemory:
    with engine(model, config) as llm:
        offline_round(llm, workload, concurrency)
        return EngineMemory(*(_device_bytes(llm) if device_name() == "cuda" else _process_bytes()), weight_bytes(llm))


def _device_bytes(llm: Any) -> tuple[int, int]:
    """Summed over the workers: with several GPUs each is a process of its own."""
    now, peak = zip(*llm.collective_rpc(_tensor_bytes), strict=True)
    return sum(now), sum(peak)


def _tensor_bytes(_worker: Any) -> tuple[int, int]:
    import torch

    return torch.cuda.memory_allocated(), torch.cuda.max_memory_allocated()


def _process_bytes() -> tuple[int, int]:
    """Now, and at most since the process began."""
    status = Path("/proc/self/status").read_text()
    resident, peak = (int(re.findall(rf"{name}:\s+(\d+) kB", status)[0]) << 10 for name in ("VmRSS", "VmHWM"))
    return resident, peak


if __name__ == "__main__":
    given = json.load(sys.stdin)
    found = _measured(
        open_model(Path(given["model"])),
        EngineSettings(**given["config"]),
        Workload(**given["workload"]),
        given["concurrency"],
    )
    print(json.dumps(asdict(found)))

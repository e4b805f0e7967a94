"""Which names are repositories on the Hugging Face Hub."""

from __future__ import annotations

import re
from pathlib import Path


def is_hub_id(name: str) -> bool:
    """Whether `name` has the form OWNER/NAME of the Hub and is not a path on this machine."""
    return re.fullmatch(r"\w[\w.-]*/\w[\w.-]*", name, re.ASCII) is not None and not Path(name).exists()

"""How a model is named in the files that outlive a command."""

from __future__ import annotations

from typing import Literal

# hub: NAME is its id on the Hub. folder, file: NAME is an absolute path. alias: a short name of `harness models`.
# unknown: in a file of an older version.
ModelKind = Literal["hub", "folder", "file", "alias", "unknown"]

"""Names for the array types."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

FloatArray = npt.NDArray[np.floating[Any]]


IndexArray = npt.NDArray[np.int32]
BoolArray = npt.NDArray[np.bool_]

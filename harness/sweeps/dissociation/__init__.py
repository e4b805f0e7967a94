from collections.abc import Mapping
from typing import Any

DISSOCIATE_DEFAULTS: Mapping[str, Any] = {"ratio": 0.1, "limit": 200}

"""OpenVINO, imported so that it sends no usage data: ``from geocfl.models.quiet_openvino import ov``."""

from __future__ import annotations

import sys
from typing import Any

__all__ = ["ov"]

_modules: dict[str, Any] = sys.modules
_TELEMETRY = "openvino_telemetry"
# `import openvino` reports itself to Google Analytics, from a forked process, with an identifier that it keeps in the
# user's home folder. Where the package for it is absent, OpenVINO uses a stub of its own, which does nothing.
_absent = _TELEMETRY not in _modules
if _absent:
    _modules[_TELEMETRY] = None
try:
    import openvino as ov
finally:
    if _absent:
        del _modules[_TELEMETRY]

"""QGIS plugin that runs geocfl from the Processing toolbox."""

from __future__ import annotations

from typing import Any


def classFactory(iface: Any) -> Any:
    """Makes the plugin; QGIS calls this when it loads the folder."""
    from .plugin import GeocflPlugin

    return GeocflPlugin(iface)

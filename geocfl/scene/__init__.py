"""Sentinel-2 pixels in: which band is which, what the numbers mean, where they lie."""

from geocfl.scene.reader import Scene, open_scene

__all__ = ["Scene", "open_scene"]

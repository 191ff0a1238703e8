"""Sentinel-2 pixels in: which band is which, what the numbers mean, where they lie."""

from geocfl.scene.extent import Area
from geocfl.scene.finding import find_source
from geocfl.scene.folder import group_files
from geocfl.scene.reader import Reading, Scene, open_scene
from geocfl.scene.source import Source

__all__ = ["Area", "Reading", "Scene", "Source", "find_source", "group_files", "open_scene"]

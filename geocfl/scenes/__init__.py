"""Sentinel-2 pixels in: which band is which, what the numbers mean, where they lie."""

from geocfl.scenes.area import Area
from geocfl.scenes.find import find_source
from geocfl.scenes.formats.folder import group_files
from geocfl.scenes.reader import Reading, Scene, open_scene
from geocfl.scenes.source import Source

__all__ = ["Area", "Reading", "Scene", "Source", "find_source", "group_files", "open_scene"]

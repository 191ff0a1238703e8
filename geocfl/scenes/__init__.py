"""Sentinel-2 scenes: finds their bands, reads them as reflectance, and knows where the pixels lie."""

from geocfl.scenes.area import Area
from geocfl.scenes.find import find_source
from geocfl.scenes.opening import open_scene
from geocfl.scenes.reader import Scene
from geocfl.scenes.reading import Reading
from geocfl.scenes.source import Source

__all__ = ["Area", "Reading", "Scene", "Source", "find_source", "open_scene"]

"""Scenes to maps: windows, the read-classify-write pipeline, and the back end that classifies."""

from geocfl.mapping.many import map_scenes
from geocfl.mapping.mapper import map_scene
from geocfl.mapping.settings import MapSettings
from geocfl.products.scene_map import SceneMap

__all__ = ["MapSettings", "SceneMap", "map_scene", "map_scenes"]

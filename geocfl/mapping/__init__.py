"""Scenes to maps: windows, the read-classify-write pipeline, and the back end that classifies."""

from geocfl.mapping.mapper import MapSettings, SceneMap, map_scene, map_scenes

__all__ = ["MapSettings", "SceneMap", "map_scene", "map_scenes"]

"""Maps scenes: reads them in strips, classifies their windows, and writes the products."""

from geocfl.mapping.many import map_scenes
from geocfl.mapping.mapper import map_scene
from geocfl.mapping.settings import MapOptions, MapSettings
from geocfl.products.scene_map import SceneMap

__all__ = ["MapOptions", "MapSettings", "SceneMap", "map_scene", "map_scenes"]

"""geocfl: land-use / land-cover maps from Sentinel-2 scenes.

Every command of the command line is one function here; they are imported when first used, so that ``import geocfl``
loads neither torch nor torchgeo.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

from geocfl._version import __version__ as __version__

if TYPE_CHECKING:
    from geocfl.analysis.mosaic import mosaic as mosaic
    from geocfl.analysis.zonal import stats as stats
    from geocfl.demonstration.demo import demo as demo
    from geocfl.errors import GeocflError as GeocflError
    from geocfl.evaluation.evaluate import evaluate as evaluate
    from geocfl.experiments.compare import compare as compare
    from geocfl.mapping import map_scene as map_scene
    from geocfl.mapping import map_scenes as map_scenes
    from geocfl.mapping.info import info as info
    from geocfl.mapping.results import Tally as Tally
    from geocfl.models.bundle import Model as Model
    from geocfl.models.bundle import load_model as load_model
    from geocfl.models.export import export as export
    from geocfl.models.predict import Prediction as Prediction
    from geocfl.planning.plan import plan as plan
    from geocfl.products.scene_map import SceneMap as SceneMap
    from geocfl.products.scene_map import open_map as open_map
    from geocfl.scenes.clouds import find_clouds as find_clouds
    from geocfl.training.train import train as train

_HOMES = {
    "GeocflError": "geocfl.errors",
    "Model": "geocfl.models.bundle",
    "Prediction": "geocfl.models.predict",
    "SceneMap": "geocfl.products.scene_map",
    "Tally": "geocfl.mapping.results",
    "compare": "geocfl.experiments.compare",
    "demo": "geocfl.demonstration.demo",
    "evaluate": "geocfl.evaluation.evaluate",
    "export": "geocfl.models.export",
    "find_clouds": "geocfl.scenes.clouds",
    "info": "geocfl.mapping.info",
    "load_model": "geocfl.models.bundle",
    "map_scene": "geocfl.mapping",
    "map_scenes": "geocfl.mapping",
    "mosaic": "geocfl.analysis.mosaic",
    "open_map": "geocfl.products.scene_map",
    "plan": "geocfl.planning.plan",
    "stats": "geocfl.analysis.zonal",
    "train": "geocfl.training.train",
}
__all__ = [
    "GeocflError",
    "Model",
    "Prediction",
    "SceneMap",
    "Tally",
    "__version__",
    "compare",
    "demo",
    "evaluate",
    "export",
    "find_clouds",
    "info",
    "load_model",
    "map_scene",
    "map_scenes",
    "mosaic",
    "open_map",
    "plan",
    "stats",
    "train",
]


def __getattr__(name: str) -> Any:
    if name in _HOMES:
        return getattr(import_module(_HOMES[name]), name)
    raise AttributeError(f"module 'geocfl' has no attribute {name!r}")


def __dir__() -> list[str]:
    return __all__

"""geocfl: land-use / land-cover maps from Sentinel-2 scenes.

Every command of the command line is one function here; they are imported when first used, so that ``import geocfl``
loads neither torch nor torchgeo.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

__version__ = "0.1.0"

if TYPE_CHECKING:
    from geocfl.assessment import evaluate as evaluate
    from geocfl.clouds import find_clouds as find_clouds
    from geocfl.comparison import compare as compare
    from geocfl.demonstration import demo as demo
    from geocfl.description import info as info
    from geocfl.errors import GeocflError as GeocflError
    from geocfl.exporting import export as export
    from geocfl.mapping import SceneMap as SceneMap
    from geocfl.mapping import map_scene as map_scene
    from geocfl.mapping import map_scenes as map_scenes
    from geocfl.mapping.many import Tally as Tally
    from geocfl.model import Model as Model
    from geocfl.model import load_model as load_model
    from geocfl.mosaicking import mosaic as mosaic
    from geocfl.planning import plan as plan
    from geocfl.prediction import Prediction as Prediction
    from geocfl.training import train as train
    from geocfl.zones import stats as stats

_HOMES = {
    "GeocflError": "geocfl.errors",
    "Model": "geocfl.model",
    "Prediction": "geocfl.prediction",
    "SceneMap": "geocfl.mapping",
    "Tally": "geocfl.mapping.many",
    "compare": "geocfl.comparison",
    "demo": "geocfl.demonstration",
    "evaluate": "geocfl.assessment",
    "export": "geocfl.exporting",
    "find_clouds": "geocfl.clouds",
    "info": "geocfl.description",
    "load_model": "geocfl.model",
    "map_scene": "geocfl.mapping",
    "map_scenes": "geocfl.mapping",
    "mosaic": "geocfl.mosaicking",
    "plan": "geocfl.planning",
    "stats": "geocfl.zones",
    "train": "geocfl.training",
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

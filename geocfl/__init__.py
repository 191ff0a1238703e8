"""geocfl: land-use and land-cover maps from Sentinel-2 scenes.

Each command of the command line is one function here. ``__init__.pyi`` lists the public names; each is imported when
it is first used, so that ``import geocfl`` loads neither torch nor rasterio.
"""

import lazy_loader

from geocfl._version import __version__ as __version__

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)

"""A process for pygeoapi (OGC API - Processes): land cover of a scene on the server, as GeoJSON.

Put this file where pygeoapi's Python finds it, and into pygeoapi's configuration:

    resources:
      land-cover:
        type: process
        processor:
          name: pygeoapi_process.LandCoverProcessor
          scenes: /data/scenes

Then ask for a map, here of a part of a scene:

    curl -X POST http://localhost:5000/processes/land-cover/execution -H 'Content-Type: application/json' \
      -d '{"inputs": {"scene": "S2B_33TUL_20220601_0_L2A.tif", "bbox": [13.2, 45.7, 13.4, 45.8]}}'

`scenes` is the only folder that requests can read.
"""

from __future__ import annotations

import json
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from pygeoapi.process.base import BaseProcessor, ProcessorExecuteError

import geocfl

PROCESS = {
    "version": geocfl.__version__,
    "id": "land-cover",
    "title": {"en": "Land cover of a Sentinel-2 scene"},
    "description": {"en": "Polygons of ten land-use / land-cover classes, with hectares and confidence."},
    "jobControlOptions": ["sync-execute", "async-execute"],
    "keywords": ["land cover", "Sentinel-2"],
    "inputs": {
        "scene": {
            "title": "Scene",
            "description": "Name of a file or folder among the server's scenes.",
            "schema": {"type": "string"},
            "minOccurs": 1,
            "maxOccurs": 1,
        },
        "bbox": {
            "title": "Area",
            "description": "West, south, east, north in degrees; the whole scene by default.",
            "schema": {"type": "array", "items": {"type": "number"}, "minItems": 4, "maxItems": 4},
            "minOccurs": 0,
            "maxOccurs": 1,
        },
        "stride": {
            "title": "Side of a cell",
            "description": "Pixels of 10 m, 1 to 64.",
            "schema": {"type": "integer", "minimum": 1, "maximum": 64, "default": 16},
            "minOccurs": 0,
            "maxOccurs": 1,
        },
    },
    "outputs": {
        "map": {
            "title": "Land cover",
            "description": "Polygons with class_code, class_name, area_ha and confidence.",
            "schema": {"type": "object", "contentMediaType": "application/geo+json"},
        }
    },
    "example": {"inputs": {"scene": "S2B_33TUL_20220601_0_L2A.tif", "bbox": [13.2, 45.7, 13.4, 45.8]}},
}


class LandCoverProcessor(BaseProcessor):
    """Maps a scene for each request; the files of the map are removed afterward."""

    def __init__(self, processor_def: dict[str, Any]) -> None:
        super().__init__(processor_def, PROCESS)
        self.scenes = Path(processor_def["scenes"]).resolve()
        self.how = {"model": processor_def["model"]} if "model" in processor_def else {}

    def execute(self, data: dict[str, Any], outputs: Any = None) -> tuple[str, Any]:
        """Maps the scene of a request.

        Returns:
            The media type, and GeoJSON in longitude and latitude.
        """
        scene = (self.scenes / str(data.get("scene", ""))).resolve()
        if scene == self.scenes or not scene.is_relative_to(self.scenes) or not scene.exists():
            raise ProcessorExecuteError(user_msg="scene: is not among the server's scenes")
        area = {"bbox": tuple(data["bbox"])} if data.get("bbox") else {}
        with TemporaryDirectory() as folder:
            try:
                made = geocfl.map_scene(
                    scene,
                    folder,
                    stride=data.get("stride", 16),
                    products=("lulc", "vector"),
                    vector=("geojson",),
                    **area,
                    **self.how,
                )
            except geocfl.GeocflError as error:  # one sentence, for people; it may name the server's folders
                message = str(error).replace(f"{self.scenes}/", "")
                raise ProcessorExecuteError(user_msg=message) from error
            return "application/geo+json", json.loads(made.paths["geojson"].read_text(encoding="utf-8"))

    def __repr__(self) -> str:
        return f"<LandCoverProcessor> {self.name}"

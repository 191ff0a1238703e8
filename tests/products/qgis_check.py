"""Opens a map's products in QGIS as a user would, and prints what QGIS makes of them as JSON.

Run by the system's Python, which has QGIS's bindings; geocfl is not at hand there.

    QT_QPA_PLATFORM=offscreen /usr/bin/python3 qgis_check.py FOLDER PICTURE.png
"""

import json
import sys
from pathlib import Path

from qgis.core import (
    Qgis,
    QgsApplication,
    QgsMapRendererSequentialJob,
    QgsMapSettings,
    QgsRasterLayer,
    QgsVectorLayer,
)
from qgis.PyQt.QtCore import QSize, Qt
from qgis.PyQt.QtGui import QColor

ZOOM = 8


def render(layer, picture, extent, size):
    """Draws an extent of a layer, nothing where it has nothing."""
    settings = QgsMapSettings()
    settings.setLayers([layer])
    settings.setDestinationCrs(layer.crs())
    settings.setExtent(extent)
    settings.setOutputSize(QSize(*size))
    settings.setBackgroundColor(QColor(Qt.transparent))
    settings.setFlag(QgsMapSettings.Antialiasing, False)
    job = QgsMapRendererSequentialJob(settings)
    job.start()
    job.waitForFinished()
    job.renderedImage().save(str(picture))


def check(folder, pictures):
    """What QGIS shows of each layer, opened by its path alone."""
    lulc = QgsRasterLayer(str(folder / "S_lulc.tif"), "lulc")
    confidence = QgsRasterLayer(str(folder / "S_confidence.tif"), "confidence")
    polygons = QgsVectorLayer(f"{folder / 'S_lulc.gpkg'}|layername=lulc", "polygons", "ogr")
    by_file = QgsVectorLayer(str(folder / "S_lulc.gpkg"), "by file", "ogr")
    size = (lulc.width() * ZOOM, lulc.height() * ZOOM)
    for name, layer in (("lulc", lulc), ("confidence", confidence), ("polygons", polygons)):
        render(layer, pictures / f"{name}.png", lulc.extent(), size)
    shader = confidence.renderer().shader().rasterShaderFunction()
    return {
        "version": Qgis.QGIS_VERSION,
        "lulc": {
            "valid": lulc.isValid(),
            "crs": lulc.crs().authid(),
            "renderer": lulc.renderer().type(),
            "classes": [[int(c.value), c.label, c.color.name()] for c in lulc.renderer().classes()],
        },
        "confidence": {
            "valid": confidence.isValid(),
            "renderer": confidence.renderer().type(),
            "range": [shader.minimumValue(), shader.maximumValue()],
            "value": confidence.dataProvider().sample(confidence.extent().center(), 1)[0],
        },
        "polygons": [
            {
                "valid": layer.isValid(),
                "crs": layer.crs().authid(),
                "features": layer.featureCount(),
                "renderer": layer.renderer().type(),
                "attribute": layer.renderer().classAttribute(),
                "classes": [
                    [int(c.value()), c.label(), c.symbol().color().name()] for c in layer.renderer().categories()
                ],
            }
            for layer in (polygons, by_file)
        ],
    }


if __name__ == "__main__":
    application = QgsApplication([], False)
    application.initQgis()
    print(json.dumps(check(Path(sys.argv[1]), Path(sys.argv[2]))))
    application.exitQgis()

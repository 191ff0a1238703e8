"""Enumerations of Processing, which QGIS 3.36 has moved into ``Qgis``."""

from __future__ import annotations

from qgis.core import (
    Qgis,
    QgsProcessing,
    QgsProcessingParameterDefinition,
    QgsProcessingParameterFile,
    QgsProcessingParameterNumber,
)

if hasattr(Qgis, "ProcessingParameterFlag"):
    ADVANCED = Qgis.ProcessingParameterFlag.Advanced
    RASTER = Qgis.ProcessingSourceType.Raster
    POINTS = Qgis.ProcessingSourceType.VectorPoint
    POLYGONS = Qgis.ProcessingSourceType.VectorPolygon
    INTEGER = Qgis.ProcessingNumberParameterType.Integer
    DOUBLE = Qgis.ProcessingNumberParameterType.Double
    FOLDER = Qgis.ProcessingFileParameterBehavior.Folder
else:
    ADVANCED = QgsProcessingParameterDefinition.Flag.FlagAdvanced
    RASTER = QgsProcessing.SourceType.TypeRaster
    POINTS = QgsProcessing.SourceType.TypeVectorPoint
    POLYGONS = QgsProcessing.SourceType.TypeVectorPolygon
    INTEGER = QgsProcessingParameterNumber.Type.Integer
    DOUBLE = QgsProcessingParameterNumber.Type.Double
    FOLDER = QgsProcessingParameterFile.Behavior.Folder

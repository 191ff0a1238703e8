"""Options as parameters of QGIS, and the values that the user has given them."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from qgis.core import (
    QgsCoordinateReferenceSystem,
    QgsProcessingAlgorithm,
    QgsProcessingContext,
    QgsProcessingException,
    QgsProcessingFeedback,
    QgsProcessingParameterBoolean,
    QgsProcessingParameterCrs,
    QgsProcessingParameterDefinition,
    QgsProcessingParameterEnum,
    QgsProcessingParameterExtent,
    QgsProcessingParameterFeatureSource,
    QgsProcessingParameterField,
    QgsProcessingParameterFile,
    QgsProcessingParameterFileDestination,
    QgsProcessingParameterFolderDestination,
    QgsProcessingParameterMultipleLayers,
    QgsProcessingParameterNumber,
    QgsProcessingParameterPoint,
    QgsProcessingParameterRasterLayer,
    QgsProcessingParameterString,
    QgsProcessingParameterVectorLayer,
    QgsProviderRegistry,
    QgsVectorFileWriter,
)

from . import commands, enumerations
from .commands import Command, Option
from .texts import tr

LONGITUDE_LATITUDE = "EPSG:4326"
TYPES = {
    commands.RASTER: QgsProcessingParameterRasterLayer,
    commands.RASTERS: QgsProcessingParameterMultipleLayers,
    commands.VECTOR: QgsProcessingParameterFeatureSource,
    commands.VECTOR_FILE: QgsProcessingParameterVectorLayer,
    commands.FIELD: QgsProcessingParameterField,
    commands.FILE: QgsProcessingParameterFile,
    commands.FOLDER: QgsProcessingParameterFile,
    commands.TEXT: QgsProcessingParameterString,
    commands.TEXTS: QgsProcessingParameterString,
    commands.FLAG: QgsProcessingParameterBoolean,
    commands.INTEGER: QgsProcessingParameterNumber,
    commands.NUMBER: QgsProcessingParameterNumber,
    commands.CHOICE: QgsProcessingParameterEnum,
    commands.CHOICES: QgsProcessingParameterEnum,
    commands.EXTENT: QgsProcessingParameterExtent,
    commands.POINT: QgsProcessingParameterPoint,
    commands.CRS: QgsProcessingParameterCrs,
    commands.NEW_FILE: QgsProcessingParameterFileDestination,
    commands.NEW_FOLDER: QgsProcessingParameterFolderDestination,
}


def definition(option: Option, command: Command) -> QgsProcessingParameterDefinition:
    """The parameter of an option; what the command line says about it is its tooltip."""
    default = list(option.default) if isinstance(option.default, tuple) else option.default
    if option.kind == commands.FLAG:
        default = bool(default)
    optional = not option.required and default is None
    parameter = TYPES[option.kind](
        option.key, tr(option.label), defaultValue=default, optional=optional, **_details(option)
    )
    least, most = option.between
    if least is not None:
        parameter.setMinimum(least)
    if most is not None:
        parameter.setMaximum(most)
    parameter.setHelp(command.sentence(option, tr))
    if option.advanced:
        parameter.setFlags(parameter.flags() | enumerations.ADVANCED)
    return parameter


def _details(option: Option) -> dict[str, Any]:
    """What the parameters of a kind take besides the rest."""
    choices = {"options": list(option.choices), "usesStaticStrings": True}
    kinds: dict[str, dict[str, Any]] = {
        commands.RASTERS: {"layerType": enumerations.RASTER},
        commands.VECTOR: {"types": [enumerations.POINTS] * option.points + [enumerations.POLYGONS]},
        commands.FIELD: {"parentLayerParameterName": option.fields_of},
        commands.FILE: {"fileFilter": option.filter},
        commands.FOLDER: {"behavior": enumerations.FOLDER},
        commands.TEXTS: {"multiLine": True},
        commands.INTEGER: {"type": enumerations.INTEGER},
        commands.NUMBER: {"type": enumerations.DOUBLE},
        commands.CHOICE: choices,
        commands.CHOICES: {**choices, "allowMultiple": True},
        commands.NEW_FILE: {"fileFilter": option.filter},
        commands.NEW_FOLDER: {"createByDefault": option.required},
    }
    return kinds.get(option.kind, {})


class Values:
    """Reads the values of an algorithm's parameters as `geocfl_qgis.commands.arguments` takes them."""

    def __init__(
        self,
        algorithm: QgsProcessingAlgorithm,
        parameters: dict[str, Any],
        context: QgsProcessingContext,
        feedback: QgsProcessingFeedback,
    ) -> None:
        self._read = algorithm
        self._parameters = parameters
        self._context = context
        self._feedback = feedback
        self._readers: dict[str, Callable[[Option], Any]] = {
            commands.RASTER: self._raster,
            commands.RASTERS: self._rasters,
            commands.VECTOR: self._vector,
            commands.VECTOR_FILE: self._vector_file,
            commands.EXTENT: self._extent,
            commands.POINT: self._point,
            commands.CRS: self._crs,
            commands.FLAG: lambda option: algorithm.parameterAsBool(*self._known(option)),
            commands.INTEGER: lambda option: algorithm.parameterAsInt(*self._known(option)),
            commands.NUMBER: lambda option: algorithm.parameterAsDouble(*self._known(option)),
            commands.CHOICE: lambda option: algorithm.parameterAsEnumString(*self._known(option)),
            commands.CHOICES: lambda option: list(algorithm.parameterAsEnumStrings(*self._known(option))),
            commands.NEW_FILE: lambda option: algorithm.parameterAsFileOutput(*self._known(option)),
            commands.NEW_FOLDER: lambda option: algorithm.parameterAsFileOutput(*self._known(option)),
        }

    def of(self, command: Command) -> dict[str, Any]:
        """The value of each option of a command, by key; None without a value.

        Raises:
            QgsProcessingException: A layer is not a file, or has edits that are not saved.
        """
        return {option.key: self._value(option) for option in command.options}

    def _value(self, option: Option) -> Any:
        if self._parameters.get(option.key) in (None, ""):
            if option.kind in (commands.NEW_FILE, commands.NEW_FOLDER) and not option.required:
                return None
            if option.kind not in (commands.NEW_FILE, commands.NEW_FOLDER):
                return list(option.default) if isinstance(option.default, tuple) else option.default
        reader = self._readers.get(option.kind)
        return reader(option) if reader else self._text(option)

    def _known(self, option: Option) -> tuple[dict[str, Any], str, QgsProcessingContext]:
        return self._parameters, option.key, self._context

    def _text(self, option: Option) -> str:
        return str(self._read.parameterAsString(*self._known(option)))

    def _raster(self, option: Option) -> str:
        return _file_of(self._read.parameterAsRasterLayer(*self._known(option))) or self._text(option)

    def _rasters(self, option: Option) -> list[str]:
        return [_file_of(layer) for layer in self._read.parameterAsLayerList(*self._known(option))]

    def _vector_file(self, option: Option) -> str:
        return _file_of(self._read.parameterAsVectorLayer(*self._known(option))) or self._text(option)

    def _vector(self, option: Option) -> Any:
        """The file and layer of a vector layer; layers without a file, filters and selections are written to one."""
        _refuse_edits(self._read.parameterAsVectorLayer(*self._known(option)))
        formats = QgsVectorFileWriter.supportedFormatExtensions()
        known = (*self._known(option), formats, "gpkg", self._feedback)
        if option.layer:
            return tuple(self._read.parameterAsCompatibleSourceLayerPathAndLayerName(*known))
        return self._read.parameterAsCompatibleSourceLayerPath(*known)

    def _extent(self, option: Option) -> list[float] | None:
        crs = QgsCoordinateReferenceSystem(LONGITUDE_LATITUDE)
        box = self._read.parameterAsExtent(*self._known(option), crs)
        return None if box.isNull() else [box.xMinimum(), box.yMinimum(), box.xMaximum(), box.yMaximum()]

    def _point(self, option: Option) -> list[float]:
        crs = QgsCoordinateReferenceSystem(LONGITUDE_LATITUDE)
        point = self._read.parameterAsPoint(*self._known(option), crs)
        return [point.x(), point.y()]

    def _crs(self, option: Option) -> str | None:
        crs = self._read.parameterAsCrs(*self._known(option))
        return str(crs.authid() or crs.toWkt()) if crs.isValid() else None


def _file_of(layer: Any) -> str:
    """The file of a layer; empty if there is no layer.

    Raises:
        QgsProcessingException: The layer is not a file, or has edits that are not saved.
    """
    if layer is None:
        return ""
    _refuse_edits(layer)
    file = QgsProviderRegistry.instance().decodeUri(layer.providerType(), layer.source()).get("path")
    if layer.providerType() not in ("gdal", "ogr") or not file:
        raise QgsProcessingException(tr("{} is not a file; save the layer as one").format(layer.name()))
    return str(file if layer.providerType() == "ogr" else layer.source().partition("|")[0])


def _refuse_edits(layer: Any) -> None:
    if getattr(layer, "isModified", bool)():
        raise QgsProcessingException(tr("{} has edits that are not saved; save them first").format(layer.name()))

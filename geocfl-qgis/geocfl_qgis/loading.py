"""Loads the files that geocfl has written as layers of the project, with the styles that lie in or beside them."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from qgis.core import (
    QgsProcessingContext,
    QgsProcessingFeedback,
    QgsProcessingLayerPostProcessorInterface,
    QgsProcessingUtils,
)

from .commands import RASTER, Output
from .texts import tr


class _Styler(QgsProcessingLayerPostProcessorInterface):
    """Gives a layer its style and hides it in the legend if it is not to be seen at first."""

    def __init__(self, output: Output) -> None:
        super().__init__()
        self._output = output

    def postProcessLayer(self, layer: Any, context: QgsProcessingContext, feedback: QgsProcessingFeedback) -> None:
        """Called by QGIS, in its main thread, after it has added the layer."""
        if self._output.style:
            layer.loadNamedStyle(str(Path(__file__).with_name(self._output.style)))
        else:
            layer.loadDefaultStyle()
        layer.triggerRepaint()
        node = context.project().layerTreeRoot().findLayer(layer.id()) if context.project() else None
        if node is not None:
            node.setItemVisibilityChecked(bool(self._output.shown))
            node.setExpanded(bool(self._output.shown))


def source(output: Output, file: str) -> str:
    """What QGIS opens a file's layer by."""
    return f"{file}|layername={output.layer}" if output.layer else file


def load(found: Sequence[tuple[Output, str]], context: QgsProcessingContext) -> list[_Styler]:
    """Asks QGIS to load layers when the algorithm has ended.

    Args:
        found: Outputs and their files.
        context: The context of the algorithm; without a project, nothing is loaded.

    Returns:
        What the caller keeps until then, since QGIS does not.
    """
    kept: list[_Styler] = []
    if context.project() is None:
        return kept
    for rank, (output, file) in enumerate(found):
        if output.shown is None:
            continue
        path = Path(file)
        name = f"{tr(output.label)}: {path.name[: -len(output.ending)] or path.parent.name}"
        details = QgsProcessingContext.LayerDetails(name, context.project(), output.key, _hint(output))
        details.forceName = True
        if hasattr(details, "layerSortKey"):  # QGIS 3.32 and newer; the first of a command's outputs lies on top
            details.layerSortKey = -rank
        styler = _Styler(output)
        details.setPostProcessor(styler)
        context.addLayerToLoadOnCompletion(source(output, file), details)
        kept.append(styler)
    return kept


def _hint(output: Output) -> Any:
    hint = QgsProcessingUtils.LayerHint
    return hint.Raster if output.kind == RASTER else hint.Vector

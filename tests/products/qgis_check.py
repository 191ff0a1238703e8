"""Opens a map's products in QGIS as a user would, and says what QGIS makes of them.

Run by the system's Python, which has QGIS's bindings; geocfl is not at hand there. Each line of stdin is a request in
JSON, each line of stdout its answer:

    {"layers": [{"source": ..., "sld": ..., "picture": ...}], "projects": [{"path": ..., "picture": ...}]}

A layer is opened by its source alone; `sld` is then loaded into it. `picture` is a PNG file to draw to: `extent`, or
all of the layer, `ZOOM` pixels to a `cell` of so many map units, as at a `scale` of 1 to so many.

    QT_QPA_PLATFORM=offscreen /usr/bin/python3 qgis_check.py < requests
"""

import json
import sys

from qgis.core import (
    QgsApplication,
    QgsExpression,
    QgsExpressionContext,
    QgsExpressionContextScope,
    QgsExpressionContextUtils,
    QgsLayoutExporter,
    QgsLayoutItem,
    QgsMapLayer,
    QgsMapRendererSequentialJob,
    QgsMapSettings,
    QgsProject,
    QgsRasterLayer,
    QgsRectangle,
    QgsRenderContext,
    QgsVectorLayer,
)
from qgis.gui import QgsMapCanvas
from qgis.PyQt.QtCore import QSize, Qt
from qgis.PyQt.QtGui import QColor

ZOOM = 8


def draw(layers, crs, extent, request):
    """Draws layers, the first on top, nothing where they have nothing."""
    cell = request.get("cell", 640)
    settings = QgsMapSettings()
    settings.setLayers(layers)
    settings.setDestinationCrs(crs)
    settings.setExtent(extent)
    settings.setOutputSize(QSize(round(extent.width() / cell * ZOOM), round(extent.height() / cell * ZOOM)))
    settings.setBackgroundColor(QColor(Qt.transparent))
    settings.setFlag(QgsMapSettings.Antialiasing, False)
    context = settings.expressionContext()
    scope = QgsExpressionContextScope()
    scope.setVariable("map_scale", request.get("scale", 1_000_000))
    context.appendScope(scope)
    settings.setExpressionContext(context)
    job = QgsMapRendererSequentialJob(settings)
    job.start()
    job.waitForFinished()
    job.renderedImage().save(request["picture"])


def describe_raster(layer):
    renderer = layer.renderer()
    about = {"opacity": renderer.opacity()}
    if renderer.type() == "paletted":
        about["classes"] = [[int(c.value), c.label, c.color.name()] for c in renderer.classes()]
    elif renderer.type() == "singlebandpseudocolor":
        ramp = renderer.shader().rasterShaderFunction()
        about["range"] = [ramp.minimumValue(), ramp.maximumValue()]
        about["stops"] = [[item.value, item.label, item.color.name()] for item in ramp.colorRampItemList()]
        about["ends"] = [ramp.legendSettings().minimumLabel(), ramp.legendSettings().maximumLabel()]
        about["value"] = layer.dataProvider().sample(layer.extent().center(), 1)[0]
    elif renderer.type() == "multibandcolor":
        about["bands"] = [renderer.redBand(), renderer.greenBand(), renderer.blueBand(), renderer.alphaBand()]
    return about


def _value(value):
    """A category's value as JSON has it: the number of a class, or the text of an expression."""
    return int(value) if str(value).lstrip("-").isdigit() else value


def describe_vector(layer):
    renderer = layer.renderer()
    about = {"opacity": layer.opacity(), "features": layer.featureCount()}
    if layer.labelsEnabled():
        about["labels"] = layer.labeling().settings().fieldName
    if renderer.type() == "categorizedSymbol":
        about["attribute"] = renderer.classAttribute()
        about["classes"] = [[_value(c.value()), c.label(), c.symbol().color().name()] for c in renderer.categories()]
    elif renderer.type() == "RuleRenderer":
        about["rules"] = [
            [r.filterExpression(), r.label(), r.symbol().color().name()] for r in renderer.rootRule().children()
        ]
    context = QgsExpressionContext(QgsExpressionContextUtils.globalProjectLayerScopes(layer))
    for feature in layer.getFeatures():
        context.setFeature(feature)
        about["tip"] = QgsExpression.replaceExpressionText(layer.mapTipTemplate(), context)
        break
    return about


def describe(layer):
    about = {"valid": layer.isValid(), "crs": layer.crs().authid(), "crs_known": layer.crs().isValid()}
    if not layer.isValid():
        return about
    about["renderer"] = layer.renderer().type()
    raster = layer.type() == QgsMapLayer.RasterLayer
    return about | (describe_raster(layer) if raster else describe_vector(layer))


def check_layer(request):
    source = request["source"]
    raster = source.endswith(".tif")
    layer = QgsRasterLayer(source, "layer") if raster else QgsVectorLayer(source, "layer", "ogr")
    if "sld" in request:
        message, loaded = layer.loadSldStyle(request["sld"])
        assert loaded, message
    if "picture" in request:
        extent = QgsRectangle(*request["extent"]) if "extent" in request else layer.extent()
        draw([layer], layer.crs(), extent, request)
    return describe(layer)


def check_form(request):
    """What an interpreter sees: widgets, drop-downs, columns of the attribute table, and the action's scopes."""
    layer = QgsVectorLayer(request["source"], "layer", "ogr")
    fields = layer.fields()
    setups = {field.name(): layer.editorWidgetSetup(fields.indexOf(field.name())) for field in fields}
    columns = layer.attributeTableConfig().columns()
    feature = next(layer.getFeatures())
    colors = {}
    for answer in (None, "Forest"):
        feature["reference"] = answer
        context = QgsRenderContext()
        context.expressionContext().setFeature(feature)
        context.expressionContext().setFields(fields)
        renderer = layer.renderer().clone()
        renderer.startRender(context, fields)
        colors[str(answer)] = renderer.symbolForFeature(feature, context).symbolLayer(0).strokeColor().name()
        renderer.stopRender(context)
    return {
        "widgets": {name: setup.type() for name, setup in setups.items()},
        "answers": [list(entry) for entry in setups["reference"].config().get("map", [])],
        "values": [list(entry.values()) for entry in setups["reference"].config().get("map", [])],
        "hidden": [column.name for column in columns if column.hidden],
        "form": [element.name() for element in layer.editFormConfig().tabs()],
        "read_only": [name for name in setups if layer.editFormConfig().readOnly(fields.indexOf(name))],
        "alias": layer.attributeAlias(fields.indexOf("reference")),
        "actions": [[action.name(), sorted(action.actionScopes())] for action in layer.actions().actions()],
        "title": layer.displayExpression(),
        "colors": colors,
    }


def check_project(request, canvas):
    project = QgsProject.instance()
    about = {"read": project.read(request["path"]), "title": project.title()}
    nodes = project.layerTreeRoot().findLayers()
    about |= {
        "crs": project.crs().authid(),
        "crs_known": project.crs().isValid(),
        "extent": rectangle(project.viewSettings().defaultViewExtent()),
        "seen": rectangle(canvas.extent()),
        "layers": [
            {"name": node.name(), "shown": node.isVisible(), "expanded": node.isExpanded()}
            | describe(node.layer())
            | {"crs_as_project": node.layer().crs() == project.crs(), "abstract": node.layer().metadata().abstract()}
            for node in nodes
        ],
    }
    about["layouts"] = [describe_layout(layout, request) for layout in project.layoutManager().printLayouts()]
    if "picture" in request:
        shown = [node.layer() for node in nodes if node.isVisible()]
        draw(shown, project.crs(), QgsRectangle(*request["extent"]), request)
    project.clear()
    return about


def describe_layout(layout, request):
    """Texts, legend, extent and boxes (left, top, width, height in mm) of a print layout; draws it to `sheet`."""
    items = {item.id(): item for item in layout.items() if isinstance(item, QgsLayoutItem) and item.id()}
    legend = items["legend"].model()
    page = layout.pageCollection().page(0).pageSize()
    boxes = {
        name: [item.pos().x(), item.pos().y(), item.rect().width(), item.rect().height()]
        for name, item in items.items()
        if name != "page"
    }
    if "sheet" in request:
        settings = QgsLayoutExporter.ImageExportSettings()
        settings.dpi = 96
        QgsLayoutExporter(layout).exportToImage(request["sheet"], settings)
    return {
        "texts": {name: items[name].text() for name in ("title", "subtitle", "credit")},
        "legend": {
            layer.customProperty("legend/title-label"): [n.data(Qt.DisplayRole) for n in legend.layerLegendNodes(layer)]
            for layer in legend.rootGroup().findLayers()
        },
        "bar": items["scale bar"].unitsPerSegment(),
        "extent": rectangle(items["map"].extent()),
        "page": [page.width(), page.height()],
        "boxes": boxes,
    }


def rectangle(extent):
    return [extent.xMinimum(), extent.yMinimum(), extent.xMaximum(), extent.yMaximum()]


def main():
    canvas = QgsMapCanvas()  # listens to the project, as QGIS's window does
    canvas.setObjectName("theMapCanvas")
    canvas.resize(800, 600)
    for line in sys.stdin:
        request = json.loads(line)
        layers = [check_layer(layer) for layer in request.get("layers", [])]
        projects = [check_project(project, canvas) for project in request.get("projects", [])]
        forms = [check_form(form) for form in request.get("forms", [])]
        print(json.dumps({"layers": layers, "projects": projects, "forms": forms}), flush=True)


if __name__ == "__main__":
    application = QgsApplication([], True)
    application.initQgis()
    main()
    application.exitQgis()

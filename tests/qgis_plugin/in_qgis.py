"""Runs algorithms of the plugin in QGIS as its window does, and says what the project and the message bar show then.

Run by the system's Python, which has QGIS's bindings. Standard input is JSON, as is the last line of standard output:

    [{"run": "geocfl:map", "parameters": {...}, "cancel": false}, {"memory": "name", "polygons": {...}},
     {"setting": "folder"}, {"picture": "file.png"}]

A layer of the project is named by ``@`` and its name among the parameters; `memory` makes one without a file.

    QT_QPA_PLATFORM=offscreen /usr/bin/python3 in_qgis.py < requests
"""

import json
import sys
import threading
import time

from qgis.core import (
    QgsApplication,
    QgsFeature,
    QgsGeometry,
    QgsMapRendererSequentialJob,
    QgsMapSettings,
    QgsProcessingAlgRunnerTask,
    QgsProcessingContext,
    QgsProcessingFeedback,
    QgsProject,
    QgsVectorLayer,
)
from qgis.PyQt.QtCore import QSize
from qgis.PyQt.QtGui import QColor


class Bar:
    """The message bar of a window."""

    def __init__(self):
        self.shown = []

    def messageBar(self):  # noqa: N802
        return self

    def pushMessage(self, title, text, level):  # noqa: N802
        on_main = threading.current_thread() is threading.main_thread()
        self.shown.append([title, text, int(level), on_main])


class Feedback(QgsProcessingFeedback):
    """Records progress, and cancels when geocfl classifies, if asked to."""

    def __init__(self, cancel):
        super().__init__(False)
        self.cancel_soon = cancel
        self.percents = []
        self.progressChanged.connect(self.percents.append)

    def setProgressText(self, text):  # noqa: N802
        if self.cancel_soon:
            self.cancel()


def run(name, parameters, cancel=False):
    """Runs an algorithm in a task, as the dialog does, with the window's loop going on, then loads its results."""
    from processing.gui.Postprocessing import handleAlgorithmResults

    project = QgsProject.instance()
    parameters = {
        key: project.mapLayersByName(value[1:])[0].id() if str(value).startswith("@") else value
        for key, value in parameters.items()
    }
    algorithm = QgsApplication.processingRegistry().createAlgorithmById(name)
    possible, reason = algorithm.canExecute()
    if not possible:
        return {"ok": False, "log": reason, "results": {}, "percents": []}
    context, feedback = QgsProcessingContext(), Feedback(cancel)
    context.setProject(project)
    task = QgsProcessingAlgRunnerTask(algorithm, parameters, context, feedback)
    done = []
    task.executed.connect(lambda ok, results: done.append((ok, results)))
    before = {layer.id() for layer in project.mapLayers().values()}
    QgsApplication.taskManager().addTask(task)
    turns, end = 0, time.monotonic() + 300
    while not done and time.monotonic() < end:
        QgsApplication.processEvents()
        time.sleep(0.01)
        turns += 1
    ok, results = done[0]
    if ok:
        handleAlgorithmResults(algorithm, context, feedback, parameters)
    new = [layer for layer in project.mapLayers().values() if layer.id() not in before]
    return {
        "ok": ok,
        "results": results,
        "log": feedback.textLog(),
        "percents": feedback.percents,
        "turns": turns,
        "layers": {layer.name(): described(layer) for layer in new},
    }


def described(layer):
    """How a layer is drawn, and whether the legend shows it."""
    renderer = layer.renderer()
    node = QgsProject.instance().layerTreeRoot().findLayer(layer.id())
    labels = [item.label for item in renderer.classes()] if renderer and renderer.type() == "paletted" else []
    if renderer and renderer.type() == "categorizedSymbol":
        labels = [category.label() for category in renderer.categories()]
    widgets = {}
    if isinstance(layer, QgsVectorLayer):
        widgets = {field.name(): field.editorWidgetSetup().type() for field in layer.fields()}
    kind = renderer.type() if renderer else ""
    return {"renderer": kind, "labels": labels, "visible": node.itemVisibilityChecked(), "widgets": widgets}


def add_memory(name, polygons, crs="EPSG:4326", edited=False):
    """Adds polygons, WKT by name, as a layer without a file; with `edited`, the last one is not saved."""
    layer = QgsVectorLayer(f"Polygon?crs={crs}&field=name:string", name, "memory")
    features = []
    for called, text in polygons.items():
        feature = QgsFeature(layer.fields())
        feature.setAttribute("name", called)
        feature.setGeometry(QgsGeometry.fromWkt(text))
        features.append(feature)
    layer.dataProvider().addFeatures(features)
    layer.updateExtents()
    if edited:
        layer.startEditing()
        layer.addFeature(features[-1])
    QgsProject.instance().addMapLayer(layer)


def draw(picture, size=(640, 512)):
    """Draws the project as its legend shows it."""
    project = QgsProject.instance()
    layers = project.layerTreeRoot().checkedLayers()
    settings = QgsMapSettings()
    settings.setLayers(layers)
    settings.setDestinationCrs(layers[0].crs())
    settings.setExtent(layers[-1].extent())
    settings.setOutputSize(QSize(*size))
    settings.setBackgroundColor(QColor("white"))
    job = QgsMapRendererSequentialJob(settings)
    job.start()
    job.waitForFinished()
    job.renderedImage().save(picture)
    return [layer.name() for layer in layers]


def main():
    """Answers the requests."""
    application = QgsApplication([], True)
    application.initQgis()
    sys.path.append("/usr/share/qgis/python/plugins")
    import geocfl_qgis
    from processing.core.Processing import Processing
    from processing.core.ProcessingConfig import ProcessingConfig

    Processing.initialize()
    bar = Bar()
    plugin = geocfl_qgis.classFactory(bar)
    plugin.initGui()
    answers = []
    for request in json.load(sys.stdin):
        if "run" in request:
            answers.append(run(request["run"], request["parameters"], request.get("cancel", False)))
        elif "setting" in request:
            answers.append(ProcessingConfig.setSettingValue("GEOCFL_PROGRAM", request["setting"]))
        elif "memory" in request:
            answers.append(add_memory(request.pop("memory"), **request))
        else:
            answers.append(draw(request["picture"]))
    QgsApplication.processEvents()
    plugin.unload()
    print(json.dumps({"answers": answers, "bar": bar.shown}, default=str))
    sys.stdout.flush()


if __name__ == "__main__":
    main()

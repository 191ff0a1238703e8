"""A command of geocfl as an algorithm of Processing."""

from __future__ import annotations

from typing import Any

from qgis.core import (
    QgsProcessingAlgorithm,
    QgsProcessingContext,
    QgsProcessingException,
    QgsProcessingFeedback,
    QgsProcessingOutputFile,
    QgsProcessingOutputHtml,
    QgsProcessingOutputRasterLayer,
    QgsProcessingOutputVectorLayer,
    QgsProcessingParameterBoolean,
)
from qgis.PyQt.QtGui import QIcon

from . import commands, environment, loading, process
from .commands import Command
from .environment import INSTALL
from .installation import installed
from .messages import reported
from .parameters import Values, definition
from .settings import icon_path, program_setting
from .texts import tr

LOAD = "LOAD"
OUTPUTS = {
    commands.RASTER: QgsProcessingOutputRasterLayer,
    commands.VECTOR: QgsProcessingOutputVectorLayer,
    commands.PAGE: QgsProcessingOutputHtml,
    commands.FILE: QgsProcessingOutputFile,
}


class GeocflAlgorithm(QgsProcessingAlgorithm):
    """Runs one command of geocfl in a process; Processing calls it in a thread, so the window stays alive."""

    def __init__(self, command: Command) -> None:
        super().__init__()
        self._command = command
        self._stylers: list[Any] = []

    def createInstance(self) -> GeocflAlgorithm:
        """A new one, for each run."""
        return type(self)(self._command)

    def name(self) -> str:
        """Name in the identifier, such as ``geocfl:map``."""
        return self._command.name

    def displayName(self) -> str:
        """Name in the toolbox."""
        return tr(self._command.title)

    def group(self) -> str:
        """Group in the toolbox."""
        return tr(self._command.group)

    def groupId(self) -> str:
        """Name of the group in settings."""
        return self._command.group.lower().replace(" ", "")

    def icon(self) -> QIcon:
        """Icon in the toolbox."""
        return QIcon(icon_path())

    def tags(self) -> list[str]:
        """Words that the toolbox finds the algorithm by."""
        return ["geocfl", "lulc", "sentinel-2", tr("land cover"), tr("classification"), self._command.name]

    def shortHelpString(self) -> str:
        """The help beside the dialog: what the command line says about the command and its main options."""
        lines = [f"<p>{paragraph}</p>" for paragraph in self._command.sentence(None, tr).split("\n\n")]
        explained = {option.name: option for option in reversed(self._command.options) if not option.advanced}
        for option in reversed(list(explained.values())):
            lines.append(f"<p><b>{tr(option.label)}.</b> {self._command.sentence(option, tr)}</p>")
        return "".join(lines)

    def helpUrl(self) -> str:
        """The page that the Help button opens."""
        return INSTALL.partition("#")[0]

    def canExecute(self) -> Any:
        """Whether there is a geocfl to run; if not, the sentence that says what to install or choose."""
        try:
            environment.find_program(program_setting())
        except environment.GeocflNotFoundError as error:
            return False, str(error)
        return True, ""

    def initAlgorithm(self, configuration: dict[str, Any] | None = None) -> None:
        """Declares parameters and outputs."""
        for option in self._command.options:
            self.addParameter(definition(option, self._command))
        self.addParameter(QgsProcessingParameterBoolean(LOAD, tr("Load the results"), defaultValue=True))
        for output in self._command.outputs:
            self.addOutput(OUTPUTS[output.kind](output.key, tr(output.label)))

    def processAlgorithm(
        self, parameters: dict[str, Any], context: QgsProcessingContext, feedback: QgsProcessingFeedback
    ) -> dict[str, Any]:
        """Runs the command, and names the files that it has written.

        Raises:
            QgsProcessingException: It failed; the message is the sentence of geocfl, which the message bar shows too.
        """
        with reported(self.displayName()):
            values = Values(self, parameters, context, feedback).of(self._command)
            done = self._run(commands.arguments(self._command, values), feedback)
            if done.code and not done.canceled:
                sentence = self._command.with_labels(process.failure(done), tr)
                if sentence.startswith("No such "):  # option or command
                    sentence = sentence.rstrip(".") + tr(
                        "; this geocfl is older than the plugin: upgrade it ({})"
                    ).format(INSTALL)
                raise QgsProcessingException(sentence)
        if done.canceled:
            feedback.pushWarning(tr("Canceled. Run the algorithm again to resume or repeat it."))
            return {}
        found = commands.results(self._command, commands.printed_files(done.out), str(values["OUT"]))
        if self.parameterAsBool(parameters, LOAD, context):
            self._stylers = loading.load(found, context)
        files = {output.key: loading.source(output, file) for output, file in reversed(found)}
        return {**files, "OUT": values["OUT"]}

    def _run(self, arguments: list[str], feedback: QgsProcessingFeedback) -> process.Finished:
        geocfl = installed(feedback)
        feedback.pushInfo(f"geocfl {geocfl.version}, {geocfl.program}")
        feedback.pushCommandInfo(commands.shown(arguments))

        def say(stream: str, line: str) -> None:
            if line.startswith("warning: "):
                feedback.pushWarning(self._command.with_labels(line, tr))
            elif stream == process.OUT:
                feedback.pushConsoleInfo(line.replace("  ", "\u00a0\u00a0"))  # which HTML would make one space of
            elif not line.startswith(process.SENTENCE):  # which ends the run as its error
                feedback.pushInfo(self._command.with_labels(line, tr))

        def progress(percent: float, text: str) -> None:
            feedback.setProgress(percent)
            feedback.setProgressText(text)

        program = [str(geocfl.program), *arguments]
        return process.run(program, geocfl.environment, say, progress, feedback.isCanceled)

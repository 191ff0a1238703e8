"""An algorithm that says whether geocfl is installed, and where."""

from __future__ import annotations

from typing import Any

from qgis.core import (
    QgsProcessingAlgorithm,
    QgsProcessingContext,
    QgsProcessingFeedback,
    QgsProcessingOutputString,
)
from qgis.PyQt.QtGui import QIcon

from .environment import INSTALL
from .installation import installed
from .messages import reported
from .settings import icon_path
from .texts import tr


class CheckAlgorithm(QgsProcessingAlgorithm):
    """Finds geocfl, or says what to install or choose."""

    def createInstance(self) -> CheckAlgorithm:
        """A new one, for each run."""
        return CheckAlgorithm()

    def name(self) -> str:
        """Name in the identifier."""
        return "check"

    def displayName(self) -> str:
        """Name in the toolbox."""
        return tr("Check the installation of geocfl")

    def icon(self) -> QIcon:
        """Icon in the toolbox."""
        return QIcon(icon_path())

    def shortHelpString(self) -> str:
        """The help beside the dialog."""
        return tr(
            "Shows which geocfl the other algorithms run, and its version, or what to install. geocfl runs in a Python "
            "environment of its own, which you choose under Settings > Options > Processing > Providers > geocfl."
        )

    def helpUrl(self) -> str:
        """The page that the Help button opens."""
        return INSTALL

    def initAlgorithm(self, configuration: dict[str, Any] | None = None) -> None:
        """Declares the outputs."""
        self.addOutput(QgsProcessingOutputString("PROGRAM", tr("Program")))
        self.addOutput(QgsProcessingOutputString("VERSION", tr("Version")))

    def processAlgorithm(
        self, parameters: dict[str, Any], context: QgsProcessingContext, feedback: QgsProcessingFeedback
    ) -> dict[str, Any]:
        """Looks for geocfl."""
        with reported(self.displayName()):
            found = installed(feedback)
        feedback.pushInfo(tr("geocfl {} is installed: {}").format(found.version, found.program))
        return {"PROGRAM": str(found.program), "VERSION": found.version}

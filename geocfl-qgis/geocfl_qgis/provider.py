"""The group "geocfl" in the Processing toolbox."""

from __future__ import annotations

from qgis.core import QgsProcessingProvider
from qgis.PyQt.QtGui import QIcon

from .algorithm import GeocflAlgorithm
from .catalog import COMMANDS
from .check import CheckAlgorithm
from .environment import GeocflNotFoundError, find_program
from .settings import GROUP, add_settings, icon_path, program_setting, remove_settings
from .texts import tr


class GeocflProvider(QgsProcessingProvider):
    """Offers the commands of geocfl, and a check of its installation."""

    def load(self) -> bool:
        """Called when Processing knows the provider."""
        add_settings()
        self.refreshAlgorithms()
        return True

    def unload(self) -> None:
        """Called when the plugin is switched off."""
        remove_settings()

    def loadAlgorithms(self) -> None:
        """Adds all algorithms, also where geocfl is not installed: their dialogs say what to install."""
        for command in COMMANDS:
            self.addAlgorithm(GeocflAlgorithm(command))
        self.addAlgorithm(CheckAlgorithm())

    def id(self) -> str:
        """Name in identifiers, such as ``geocfl:map``."""
        return "geocfl"

    def name(self) -> str:
        """Name in the toolbox and the options."""
        return GROUP

    def longName(self) -> str:
        """Name with what it is for."""
        return tr("geocfl: land-cover maps from Sentinel-2 scenes")

    def warningMessage(self) -> str:
        """What the toolbox warns of: that geocfl is not installed."""
        try:
            find_program(program_setting())
        except GeocflNotFoundError as error:
            return str(error)
        return ""

    def icon(self) -> QIcon:
        """Icon in the toolbox."""
        return QIcon(icon_path())

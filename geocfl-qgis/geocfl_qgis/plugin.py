"""The plugin: its provider of algorithms, and errors in QGIS's message bar."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from qgis.core import Qgis, QgsApplication, QgsSettings
from qgis.PyQt.QtCore import QCoreApplication, QObject, QTranslator

from .messages import MESSAGES
from .provider import GeocflProvider


class GeocflPlugin(QObject):
    """Registers the provider with Processing, also in ``qgis_process``."""

    def __init__(self, iface: Any) -> None:
        super().__init__()
        self._iface = iface
        self._provider: GeocflProvider | None = None
        self._translator: QTranslator | None = None

    def initProcessing(self) -> None:
        """Called by QGIS; by ``qgis_process``, nothing else is."""
        self._translate()
        self._provider = GeocflProvider()
        QgsApplication.processingRegistry().addProvider(self._provider)

    def initGui(self) -> None:
        """Called by QGIS with a window."""
        self.initProcessing()
        MESSAGES.failed.connect(self._show)

    def unload(self) -> None:
        """Called when the plugin is switched off."""
        if self._iface is not None:
            MESSAGES.failed.disconnect(self._show)
        if self._provider is not None:
            QgsApplication.processingRegistry().removeProvider(self._provider)
        if self._translator is not None:
            QCoreApplication.removeTranslator(self._translator)

    def _show(self, sentence: str) -> None:
        self._iface.messageBar().pushMessage("geocfl", sentence, Qgis.MessageLevel.Critical)

    def _translate(self) -> None:
        language = str(QgsSettings().value("locale/userLocale", "en"))[:2]
        file = Path(__file__).parent / "i18n" / f"geocfl_{language}.qm"
        translator = QTranslator()
        if file.is_file() and translator.load(str(file)):
            QCoreApplication.installTranslator(translator)
            self._translator = translator

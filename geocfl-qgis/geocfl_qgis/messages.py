"""Errors for QGIS's message bar, from algorithms that run in threads."""

from __future__ import annotations

from qgis.PyQt.QtCore import QObject, pyqtSignal


class Messages(QObject):
    """Hands each error over to the main thread, which alone may show it."""

    failed = pyqtSignal(str)


MESSAGES = Messages()

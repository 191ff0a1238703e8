"""Errors for QGIS's message bar, from algorithms that run in threads."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from qgis.core import QgsProcessingException
from qgis.PyQt.QtCore import QObject, pyqtSignal


class Messages(QObject):
    """Hands each error over to the main thread, which alone may show it."""

    failed = pyqtSignal(str)


MESSAGES = Messages()


@contextmanager
def reported(what: str) -> Iterator[None]:
    """Reports an error in the block, after the name of what has failed, and passes it on."""
    try:
        yield
    except QgsProcessingException as error:
        MESSAGES.failed.emit(f"{what}: {error}")
        raise

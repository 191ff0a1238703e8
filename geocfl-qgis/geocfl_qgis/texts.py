"""Translation of texts, where Qt is at hand."""

from __future__ import annotations

try:
    from qgis.PyQt.QtCore import QCoreApplication
except ImportError:  # outside QGIS, such as in tests
    QCoreApplication = None


def tr(text: str) -> str:
    """A text in the language of the user."""
    if QCoreApplication is None:
        return text
    return str(QCoreApplication.translate("geocfl", text))

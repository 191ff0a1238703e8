import build_plugin
import pytest
from geocfl_qgis import commands


@pytest.fixture(autouse=True)
def sentences(monkeypatch: pytest.MonkeyPatch) -> None:
    """The help of the command line as it is, whether or not the plugin has been built."""
    said = build_plugin.sentences()
    monkeypatch.setattr(commands, "sentences", lambda: said)

import build_plugin
import pytest
from geocfl_qgis import commands


@pytest.fixture(scope="session")
def said() -> dict[str, dict[str, str]]:
    return build_plugin.sentences()


@pytest.fixture(autouse=True)
def sentences(monkeypatch: pytest.MonkeyPatch, said: dict[str, dict[str, str]]) -> None:
    """The help of the command line as it is, whether or not the plugin has been built."""
    monkeypatch.setattr(commands, "sentences", lambda: said)

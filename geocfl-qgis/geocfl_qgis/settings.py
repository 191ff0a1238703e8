"""The one setting of the plugin, in the options of Processing: which geocfl it runs."""

from __future__ import annotations

from pathlib import Path

from processing.core.ProcessingConfig import ProcessingConfig, Setting
from qgis.PyQt.QtGui import QIcon

from .texts import tr

GROUP = "geocfl"
PROGRAM = "GEOCFL_PROGRAM"


def add_settings() -> None:
    """Shows the setting under Settings > Options > Processing > Providers > geocfl."""
    ProcessingConfig.settingIcons[GROUP] = QIcon(icon_path())
    label = tr("Python environment with geocfl (its folder; empty to search for it)")
    ProcessingConfig.addSetting(Setting(GROUP, PROGRAM, label, "", valuetype=Setting.FOLDER))
    ProcessingConfig.readSettings()


def remove_settings() -> None:
    """Removes the setting from the options; its value stays in the user's profile."""
    ProcessingConfig.removeSetting(PROGRAM)


def program_setting() -> str:
    """The folder that the user has chosen; empty without one."""
    return str(ProcessingConfig.getSetting(PROGRAM) or "")


def icon_path() -> str:
    """The icon of the plugin."""
    return str(Path(__file__).with_name("icon.svg"))

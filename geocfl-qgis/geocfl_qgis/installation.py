"""The geocfl that the plugin runs, once it is known to be usable."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from qgis.core import QgsApplication, QgsProcessingException, QgsProcessingFeedback

from . import environment, process
from .settings import program_setting


@dataclass(frozen=True)
class Installation:
    """The program ``geocfl``, its version, and the environment to run it in."""

    program: Path
    version: str
    environment: Mapping[str, str]


def installed(feedback: QgsProcessingFeedback) -> Installation:
    """Finds geocfl and asks it for its version.

    Raises:
        QgsProcessingException: There is none, or it is too old; the message says what to do.
    """
    try:
        program = environment.find_program(program_setting())
        clean = environment.clean_environment(program, os.environ, QgsApplication.prefixPath())
        asked = process.run([str(program), "--version"], clean, canceled=feedback.isCanceled)
        version = environment.check_version("\n".join(asked.out), program)
    except (environment.GeocflNotFoundError, OSError) as error:
        raise QgsProcessingException(str(error)) from error
    return Installation(program, version, clean)

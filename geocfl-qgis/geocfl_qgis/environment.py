"""Finds the installed geocfl, and the environment to run it in, which must be free of QGIS's own Python and GDAL."""

from __future__ import annotations

import os
import re
import shutil
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path

from .texts import tr

LEAST_VERSION = "0.1.0"
"""The oldest geocfl that has all commands of this plugin."""
INSTALL = "https://geocfl.readthedocs.io/en/latest/how-to/qgis-plugin/#install"
WINDOWS = sys.platform == "win32"
PROGRAM = "geocfl.exe" if WINDOWS else "geocfl"
INSIDE = ("", "bin", "Scripts", ".venv/bin", ".venv/Scripts", "venv/bin", "venv/Scripts")
"""Where an environment, or a project with one, has its programs."""
USUAL = (
    "~/.local/bin",  # pip --user, pipx and uv
    "~/geocfl",
    "~/.virtualenvs/geocfl",
    "~/.venvs/geocfl",
    *(
        f"{root}/envs/geocfl"
        for root in (
            "~/miniforge3", "~/mambaforge", "~/miniconda3", "~/anaconda3", "~/micromamba", "~/.conda", "/opt/conda",
            "/opt/miniconda3", "C:/ProgramData/miniforge3", "C:/ProgramData/miniconda3", "C:/ProgramData/anaconda3",
        )
    ),
    "~/Library/Python/3.*/bin",
    "/opt/homebrew/bin",
    "/usr/local/bin",
    "~/AppData/Roaming/Python/Python3*/Scripts",
    "~/AppData/Local/Programs/Python/Python3*/Scripts",
)  # fmt: skip
"""Where geocfl usually is if it is not on the PATH, which programs with a window on macOS do not have."""
OF_QGIS = re.compile(
    r"PYTHON.*|LD_LIBRARY_PATH|LD_PRELOAD|DYLD_.*|GDAL_DATA|GDAL_DRIVER_PATH|PROJ_LIB|PROJ_DATA|GEOTIFF_CSV"
    r"|GISBASE|QT_.*|O4W_.*|VIRTUAL_ENV|CONDA_.*",
    re.IGNORECASE,
)
"""Variables that QGIS or its start script may set for its own Python and libraries, and that break others."""


class GeocflNotFoundError(Exception):
    """There is no usable geocfl; the message says what to install or choose."""


def find_program(setting: str, path: str | None = None) -> Path:
    """The program ``geocfl``.

    Args:
        setting: The user's setting: the folder of a Python environment, or the program itself; empty to search the
            PATH and `USUAL`.
        path: The PATH; the process's own if None.

    Raises:
        GeocflNotFoundError: There is none.
    """
    if setting:
        chosen = Path(setting).expanduser()
        found = chosen if chosen.is_file() else _inside(chosen)
        if found is None:
            raise GeocflNotFoundError(
                tr(
                    "{} contains no geocfl; choose the folder of the Python environment where geocfl is installed "
                    "(Settings > Options > Processing > Providers > geocfl)"
                ).format(chosen)
            )
        return found
    on_path = shutil.which(PROGRAM, path=path)
    for found in (Path(on_path) if on_path else None, *map(_inside, _usual())):
        if found is not None:
            return found
    raise GeocflNotFoundError(
        tr(
            "geocfl was not found; install it ({}) and choose the folder of its Python environment in Settings > "
            "Options > Processing > Providers > geocfl"
        ).format(INSTALL)
    )


def _inside(folder: Path) -> Path | None:
    return next((file for part in INSIDE if (file := folder / part / PROGRAM).is_file()), None)


def _usual() -> Iterator[Path]:
    for place in USUAL:
        folder = Path(place).expanduser()
        if "*" not in place:
            yield folder
            continue
        start = Path(folder.anchor)
        yield from sorted(start.glob(folder.relative_to(start).as_posix()), reverse=True)  # the newest Python first


def clean_environment(program: Path, environment: Mapping[str, str], of_qgis: str = "") -> dict[str, str]:
    """The environment for geocfl.

    Args:
        program: The program ``geocfl``.
        environment: The environment of QGIS.
        of_qgis: QGIS's own folder, whose programs and libraries leave the PATH on Windows.

    Returns:
        `environment` without the variables of `OF_QGIS`, with the folders of the program's environment first on the
        PATH, and with what makes geocfl speak UTF-8 and report progress in JSON.
    """
    clean = {name: value for name, value in environment.items() if not OF_QGIS.fullmatch(name)}
    path_name = next((name for name in clean if name.upper() == "PATH"), "PATH")
    kept = [folder for folder in clean.get(path_name, "").split(os.pathsep) if folder]
    roots = [root for root in (of_qgis, environment.get("OSGEO4W_ROOT", "")) if root]
    if WINDOWS:
        kept = [folder for folder in kept if not any(_is_in(folder, root) for root in roots)]
    clean[path_name] = os.pathsep.join([*map(str, _folders_of(program)), *kept])
    clean.update(GEOCFL_PROGRESS="json", PYTHONUTF8="1", TYPER_USE_RICH="0", NO_COLOR="1")
    return clean


def _is_in(folder: str, root: str) -> bool:
    normal = os.path.normcase(os.path.normpath(root))
    return os.path.normcase(os.path.normpath(folder)).startswith(normal)


def _folders_of(program: Path) -> list[Path]:
    """Folders that activating an environment puts on the PATH; a conda environment on Windows needs its libraries."""
    root = program.parent.parent
    conda = [root, root / "Library/mingw-w64/bin", root / "Library/usr/bin", root / "Library/bin"]
    return [program.parent, *(conda if (root / "conda-meta").is_dir() and WINDOWS else [])]


def check_version(printed: str, program: Path) -> str:
    """The version in what ``geocfl --version`` prints.

    Raises:
        GeocflNotFoundError: It is no version of geocfl, or one older than `LEAST_VERSION`.
    """
    found = re.search(r"geocfl (\d+(?:\.\d+)*\S*)", printed)
    if not found:
        raise GeocflNotFoundError(tr("{} is not geocfl, or is broken; reinstall geocfl ({})").format(program, INSTALL))
    if _numbers(found.group(1)) < _numbers(LEAST_VERSION):
        raise GeocflNotFoundError(
            tr("{} is geocfl {}, but the plugin needs {} or newer; upgrade it ({})").format(
                program, found.group(1), LEAST_VERSION, INSTALL
            )
        )
    return found.group(1)


def _numbers(version: str) -> tuple[int, ...]:
    return tuple(int(part) for part in re.match(r"[\d.]*\d", version).group().split("."))  # type: ignore[union-attr]

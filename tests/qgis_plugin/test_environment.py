"""geocfl is found where it is, and runs without what QGIS sets for itself."""

import os
from pathlib import Path

import pytest
from geocfl_qgis import environment
from geocfl_qgis.environment import GeocflNotFoundError, check_version, clean_environment, find_program

import geocfl


def install(folder: Path, name: str = "geocfl") -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    program = folder / name
    program.write_text("#!/bin/sh\n")
    program.chmod(0o755)
    return program


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("USERPROFILE", str(tmp_path))
    monkeypatch.setattr(environment, "USUAL", [p for p in environment.USUAL if p.startswith("~")])
    monkeypatch.setattr(environment, "PROGRAM", "geocfl")
    return tmp_path


@pytest.mark.parametrize("inside", ["", "bin", "Scripts", ".venv/bin"])
def test_a_chosen_folder(home: Path, inside: str) -> None:
    program = install(home / "my env" / inside)
    assert find_program(str(home / "my env")) == program
    assert find_program(str(program)) == program


def test_a_folder_without_geocfl_is_one_sentence(home: Path) -> None:
    install(home / ".local/bin")
    with pytest.raises(GeocflNotFoundError, match=r"other contains no geocfl; choose the folder .* Providers"):
        find_program(str(home / "other"))


def test_the_path_comes_before_usual_places(home: Path) -> None:
    usual = install(home / "miniforge3/envs/geocfl/bin")
    assert find_program("", path="") == usual
    assert find_program("", path=str(install(home / "on path").parent)) == home / "on path" / "geocfl"


def test_the_newest_python_of_several(home: Path) -> None:
    for version in ("3.11", "3.12"):
        install(home / f"Library/Python/{version}/bin")
    assert "3.12" in str(find_program("", path=""))


def test_programs_of_windows(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(environment, "PROGRAM", "geocfl.exe")
    program = install(home / "AppData/Local/Programs/Python/Python312/Scripts", "geocfl.exe")
    assert find_program("", path="") == program


def test_none_says_what_to_install(home: Path) -> None:
    with pytest.raises(GeocflNotFoundError, match=r"geocfl was not found; install it \(https://.*install\)"):
        find_program("", path="")


def test_the_environment_is_free_of_qgis(tmp_path: Path) -> None:
    of_qgis = {
        "PYTHONHOME": "/usr/share/qgis", "PYTHONPATH": "/usr/share/qgis/python", "PYTHONEXECUTABLE": "x",
        "LD_LIBRARY_PATH": "/usr/lib/grass82/lib", "PROJ_LIB": "p", "proj_data": "q", "QT_PLUGIN_PATH": "t",
        "GDAL_DATA": "g", "DYLD_LIBRARY_PATH": "d", "VIRTUAL_ENV": "v", "CONDA_PREFIX": "c",
    }  # fmt: skip
    kept = {"HOME": "/home/me", "https_proxy": "http://p", "GEOCFL_CACHE": "/cache", "GDAL_HTTP_TIMEOUT": "5"}
    program = install(tmp_path / "env/bin")
    clean = clean_environment(program, {**of_qgis, **kept, "PATH": f"/usr/bin{os.pathsep}/bin"})
    assert {name: clean[name] for name in kept} == kept
    assert clean["PATH"].split(os.pathsep) == [str(program.parent), "/usr/bin", "/bin"]
    assert set(clean) - set(kept) == {"PATH", "GEOCFL_PROGRESS", "PYTHONUTF8", "TYPER_USE_RICH", "NO_COLOR"}


def test_the_path_of_windows(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(environment, "WINDOWS", True)
    program = install(tmp_path / "env/Scripts")
    (tmp_path / "env/conda-meta").mkdir()
    root = tmp_path / "OSGeo4W"
    path = os.pathsep.join([str(root / "bin"), str(root / "apps/qgis/bin"), "/windows"])
    clean = clean_environment(program, {"Path": path, "OSGEO4W_ROOT": str(root)})
    folders = clean["Path"].split(os.pathsep)
    assert folders[0] == str(program.parent)
    assert str(tmp_path / "env/Library/bin") in folders
    assert folders[-1] == "/windows"
    assert not any("OSGeo4W" in folder for folder in folders)


def test_versions() -> None:
    assert check_version("geocfl 9.1.0\n", Path("g")) == "9.1.0"
    assert check_version(f"geocfl {geocfl.__version__}", Path("g")) == geocfl.__version__
    with pytest.raises(GeocflNotFoundError, match=r"g is geocfl 0\.0\.9, but the plugin needs .* or newer; upgrade it"):
        check_version("geocfl 0.0.9", Path("g"))
    with pytest.raises(GeocflNotFoundError, match="g is not geocfl, or is broken; reinstall"):
        check_version("bash: no such file", Path("g"))

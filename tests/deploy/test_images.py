"""The container images: linted, and their steps run in a fresh environment, because an engine is seldom at hand."""

from __future__ import annotations

import fnmatch
import json
import os
import re
import runpy
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from tests.deploy.test_examples import ROOT, program

IMAGES = ["Dockerfile", "Dockerfile.cuda"]
Step = tuple[str, str]
"""An instruction and what follows it."""


def stages(name: str) -> list[list[Step]]:
    """The instructions of each stage."""
    text = re.sub(r"^#.*\n", "", (ROOT / name).read_text(encoding="utf-8"), flags=re.MULTILINE).replace("\\\n", " ")
    found: list[list[Step]] = []
    for line in filter(None, map(str.strip, text.splitlines())):
        word, _, rest = line.partition(" ")
        if word == "FROM":
            found.append([])
        elif found:
            found[-1].append((word, " ".join(rest.split())))
    return found


@pytest.mark.parametrize("name", IMAGES)
def test_lint(name: str) -> None:
    checked = subprocess.run([program("hadolint"), name], cwd=ROOT, capture_output=True, text=True, check=False)
    assert checked.returncode == 0, checked.stdout


@pytest.mark.parametrize("name", IMAGES)
def test_runs_as_a_user_and_knows_whether_it_works(name: str) -> None:
    last = dict(stages(name)[-1])
    assert int(last["USER"]) > 0
    assert last["ENTRYPOINT"] == '["geocfl"]'
    assert "HEALTHCHECK" in last


@pytest.mark.parametrize("name", IMAGES)
def test_the_context_has_what_is_copied(name: str) -> None:
    let_in = [line[1:] for line in (ROOT / ".dockerignore").read_text().splitlines() if line.startswith("!")]
    copied = [file for word, rest in stages(name)[0] if word == "COPY" for file in rest.split()[:-1]]
    assert copied
    assert set(copied) <= set(let_in)
    assert all((ROOT / file).exists() for file in let_in)
    assert not fnmatch.filter(let_in, "docs*")


def test_only_torch_is_left_out() -> None:
    script = runpy.run_path(str(ROOT / "docker/requirements.py"))
    project = (ROOT / "pyproject.toml").read_text(encoding="utf-8")
    found = script["requirements"](project, ["cloud"])
    names = {re.match(r"[\w.-]+", each)[0] for each in found}  # type: ignore[index]
    assert {"openvino", "rasterio", "universal-pathlib"} <= names
    assert names.isdisjoint(script["ONLY_TRAINING"])
    assert all(f'"{name}>=' in project for name in script["ONLY_TRAINING"])


@pytest.mark.slow
def test_the_steps_make_an_environment_that_maps_without_torch(tmp_path: Path) -> None:
    build, last = stages("Dockerfile")
    source, prefix = tmp_path / "src", tmp_path / "geocfl"
    source.mkdir()
    values = {"EXTRAS": "", "STORES": ""}
    for word, rest in build:
        if word == "ARG":
            name, _, value = rest.partition("=")
            values[name] = value.strip('"')
        elif word == "COPY":
            *files, target = rest.split()
            for file in files:
                if (ROOT / file).is_dir():
                    shutil.copytree(ROOT / file, source / target, ignore=shutil.ignore_patterns("__pycache__"))
                else:
                    shutil.copy(ROOT / file, source)
        elif word == "RUN":
            path = f"{Path(sys.executable).parent}:{os.environ['PATH']}"
            command = rest.replace("/opt/geocfl", str(prefix))
            done = subprocess.run(
                ["sh", "-c", command], cwd=source, env={**os.environ, **values, "PATH": path}, capture_output=True,
                text=True, check=False,
            )  # fmt: skip
            assert done.returncode == 0, done.stderr
    facts = dict(last)
    python, geocfl = prefix / "bin/python", prefix / "bin/geocfl"
    health = json.loads(facts["HEALTHCHECK"].partition("CMD ")[2])
    assert health[0] == json.loads(facts["ENTRYPOINT"])[0] == "geocfl"
    subprocess.run([geocfl, *health[1:]], check=True, capture_output=True)
    subprocess.run([geocfl, "demo", "--out", tmp_path / "demo"], check=True, capture_output=True)
    assert (tmp_path / "demo/demo_scene_lulc.tif").exists()
    assert subprocess.run([python, "-c", "import torch"], capture_output=True, check=False).returncode
    trained = subprocess.run(
        [geocfl, "train", "--data", tmp_path, "--out", tmp_path / "run"], capture_output=True, text=True, check=False
    )
    assert trained.returncode == 1
    assert trained.stderr.splitlines()[-1].startswith(
        "geocfl: this command needs torch, which is not installed; run: pip"
    )

"""Code blocks of Markdown pages, and a folder of stand-ins for the files that they name."""

from __future__ import annotations

import os
import re
import shlex
import shutil
import subprocess
import sys
import tomllib
import zipfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import geopandas
import numpy as np
import rasterio
import shapely
import typer.main
from PIL import Image
from rasterio.transform import Affine

from geocfl.cli import app
from geocfl.core.legend import EUROSAT
from geocfl.demonstration.landscape import write_synthetic_scene
from tests.scenes.safe_product import write_safe

ROOT = Path(__file__).parents[1]
FENCE = re.compile(
    r"^(?:<!-- test: (?P<rule>.*?) -->\n)?```(?P<language>\w*)\n(?P<text>.*?)^```$", re.MULTILINE | re.DOTALL
)


@dataclass(frozen=True)
class Block:
    """A fenced block of code.

    Attributes:
        page: The Markdown file.
        line: Where its code begins, from 1.
        language: What stands after the fence, such as ``"sh"``.
        rule: What the comment ``<!-- test: RULE -->`` on the line above says; empty without one.
        text: The code.
    """

    page: Path
    line: int
    language: str
    rule: str
    text: str

    def __str__(self) -> str:
        return f"{self.page.name}:{self.line}"

    def commands(self, program: str = "geocfl") -> Iterator[list[str]]:
        """Words of each command line of a program, without comments and line ends."""
        for line in self.text.replace("\\\n", " ").splitlines():
            words = shlex.split(line, comments=True)
            if words[:1] == [program]:
                yield words[1:]


def blocks(page: Path) -> list[Block]:
    """The blocks of a page in order."""
    text = page.read_text("utf-8")
    return [
        Block(page, text.count("\n", 0, match.start("text")) + 1, match["language"], match["rule"] or "", match["text"])
        for match in FENCE.finditer(text)
    ]


@dataclass(frozen=True)
class Runner:
    """Runs the blocks of a page one after the other in a folder, as a reader who copies them would.

    Attributes:
        folder: Where; see `write_stand_ins`.
        server: Base address that stands in for ``https://example.com``.
    """

    folder: Path
    server: str

    def run(self, block: Block) -> None:
        """Runs a block by its rule; an AssertionError where it fails, or where there is no such rule.

        Rules: ``run``; ``run with OPTIONS``, such as ``--epochs 1 --backend torch``, each added to the commands that
        have it; ``targets of the Makefile``, for ``make``, whose targets are looked up and not made. ``pip install`` is
        not run either: the extras that it names must be in pyproject.toml. Nor is ``source .venv/bin/activate``: the
        tests' own environment stands in for the reader's.
        """
        rule, _, options = block.rule.partition(" with ")
        if rule == "targets of the Makefile":
            for line in block.text.splitlines():
                self._call(["make", "--dry-run", "-C", str(ROOT), *shlex.split(line, comments=True)[1:]], block)
            return
        assert rule == "run", f"{block}: no rule for this block; put <!-- test: run --> on the line above it"
        text = block.text.replace("https://example.com/", self.server)
        if block.language == "python":
            self._call([sys.executable, "-c", text], block)
            return
        assert block.language == "sh", f"{block}: neither sh nor python"
        lines = []
        for line in text.replace("\\\n", " ").splitlines():
            words = shlex.split(line, comments=True)
            if words[:1] == ["pip"]:
                check_extras(words[2:])
                continue
            if words == ["source", ".venv/bin/activate"]:
                continue
            added = [f"{o} {v}" for o, v in pairs(shlex.split(options)) if o in options_of(words)]
            lines.append(" ".join([line.partition("  #")[0], *added]))
        self._call(["bash", "-euc", "\n".join(lines)], block)

    def _call(self, command: list[str], block: Block) -> None:
        path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
        done = subprocess.run(
            command,
            cwd=self.folder,
            # One thread each: several on cores that other tests use as well wait for one another.
            env=os.environ | {"PATH": path, "PYTHONPATH": "", "OMP_NUM_THREADS": "1"},
            capture_output=True,
            text=True,
            check=False,
        )
        assert done.returncode == 0, f"{block}: exit code {done.returncode}\n{done.stdout}\n{done.stderr}"
        assert "Traceback" not in done.stderr, f"{block}: {done.stderr}"


def options_of(words: list[str]) -> set[str]:
    """The options of a command line's command; none where it is not geocfl's."""
    if words[:1] != ["geocfl"]:
        return set()
    group: Any = typer.main.get_command(app)
    command = group.commands.get(words[1])
    return {name for parameter in command.params for name in parameter.opts} if command else set()


def pairs(words: list[str]) -> list[tuple[str, str]]:
    """Options and their values, in pairs."""
    return list(zip(words[::2], words[1::2], strict=True))


def check_extras(requirements: list[str]) -> None:
    """Asserts that what ``pip install`` is told is geocfl, with extras that it has."""
    known = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))["project"]["optional-dependencies"]
    for requirement in requirements:
        match = re.fullmatch(r"(?:geocfl|\.)(?:\[([\w,]+)\])?", requirement)
        assert match, f"pip install {requirement}: not geocfl"
        assert not match[1] or set(match[1].split(",")) <= set(known), f"pip install {requirement}: no such extra"


def write_stand_ins(folder: Path) -> None:
    """Writes small generated files under the names that the pages use: scenes, patches, zones."""
    _write_scene(folder / "scene.tif", west=362_000)
    (folder / "scenes").mkdir()
    for index in range(3):
        _write_scene(
            folder / "scenes" / f"{chr(ord('a') + index)}_2022060{index + 1}.tif", west=362_000 + 2_560 * index
        )
    write_safe(folder, bands=("B02", "B03", "B04"), zipped=True)
    squares = [shapely.box(362_000 + 1_500 * i, 5_066_000, 363_500 + 1_500 * i, 5_068_000) for i in range(2)]
    geopandas.GeoDataFrame({"name": ["west", "east"]}, geometry=squares, crs=32633).to_file(folder / "districts.gpkg")
    halves = [shapely.box(362_000 + 1_280 * i, 5_065_440, 363_280 + 1_280 * i, 5_068_000) for i in range(2)]
    labels = geopandas.GeoDataFrame({"class": ["Reef", "Dune"]}, geometry=halves, crs=32633)
    labels.to_file(folder / "labels.gpkg")
    classes = [c.folder for c in EUROSAT]
    _write_patches(folder / "2750", classes, each=12)
    with zipfile.ZipFile(folder / "EuroSAT.zip", "w") as archive:
        for patch in sorted((folder / "2750").rglob("*.jpg")):
            archive.write(patch, patch.relative_to(folder))
    for part, numbers in {"train": range(1, 7), "val": range(7, 10), "test": range(10, 13)}.items():
        names = [f"{name}_{number}.jpg" for name in classes for number in numbers]
        (folder / f"eurosat-spatial-{part}.txt").write_text("\n".join(names) + "\n")
    _write_lagoon(folder)
    for name in ("patches", "elsewhere"):
        _write_patches(folder / name, ["Macchia", "OliveGrove", "Vineyard"], each=12)


def _write_scene(path: Path, west: float) -> None:
    write_synthetic_scene(path, path.with_suffix(".truth"), size=256)
    path.with_suffix(".truth").unlink()
    with rasterio.open(path, "r+") as scene:
        scene.crs = "EPSG:32633"
        scene.transform = Affine(10, 0, west, 0, -10, 5_068_000)


def _write_lagoon(folder: Path) -> None:
    """The labels of Aquileia, and a scene of squares of random colors at their place."""
    shutil.copy(ROOT / "examples/aquileia_labels.geojson", folder)
    colors = np.random.default_rng(0).integers(200, 2500, (3, 16, 27)).astype(np.uint16)
    pixels = np.kron(colors, np.ones((64, 64), np.uint16))
    with rasterio.open(
        folder / "aquileia.tif", "w", driver="GTiff", height=pixels.shape[1], width=pixels.shape[2], count=3,
        dtype="uint16", crs="EPSG:32633", transform=Affine(10, 0, 367_377, 0, -10, 5_072_537), compress="deflate",
    ) as scene:  # fmt: skip
        scene.write(pixels)
        scene.descriptions = ("B04", "B03", "B02")


def _write_patches(folder: Path, classes: list[str], each: int) -> None:
    rng = np.random.default_rng(0)
    for index, name in enumerate(classes):
        (folder / name).mkdir(parents=True)
        color = 60 + 120 * rng.random(3)
        for number in range(1, each + 1):
            pixels = rng.normal(color, 12 + 2 * index, (64, 64, 3)).clip(0, 255).astype(np.uint8)
            Image.fromarray(pixels).save(folder / name / f"{name}_{number}.jpg", quality=95)

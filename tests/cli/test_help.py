"""What --help says: examples that parse, options in groups, at once."""

import os
import re
import resource
import shlex
import subprocess
import sys
from collections import Counter
from pathlib import Path
from typing import Any

import pytest
from typer.main import get_command
from typer.testing import CliRunner

from geocfl.cli import app
from geocfl.cli.entry import LEARN, MAP, MODELS, USE
from tests.cli.program import run

PROGRAM: Any = get_command(app)
COMMANDS: dict[str, Any] = PROGRAM.commands
HEAVY = ("torch", "torchgeo", "matplotlib", "geopandas", "rasterio", "distributed", "tqdm", "numpy")


def helped(command: str, columns: int = 80) -> str:
    done = CliRunner().invoke(app, [command, "--help"], env={"COLUMNS": str(columns)})
    assert done.exit_code == 0
    return done.stdout


def examples(command: str) -> list[str]:
    lines = [line.strip() for line in (COMMANDS[command].epilog or "").splitlines()]
    return [line for line in lines if line.startswith("geocfl ")]


@pytest.mark.integration
def test_help_lists_the_commands_in_groups(tmp_path: Path) -> None:
    text = run("--help", cwd=tmp_path).stdout
    assert [text.index(f" {panel} ") for panel in (MAP, USE, LEARN, MODELS)] == sorted(
        text.index(f" {panel} ") for panel in (MAP, USE, LEARN, MODELS)
    )
    for name, command in COMMANDS.items():
        assert f"│ {name} " in text
        assert command.rich_help_panel in {MAP, USE, LEARN, MODELS}


@pytest.mark.integration
def test_help_takes_less_than_half_a_second(tmp_path: Path) -> None:
    """Of the processor's time, which a busy machine does not stretch; the fastest of five."""

    def seconds() -> float:
        used = resource.getrusage(resource.RUSAGE_CHILDREN)
        return used.ru_utime + used.ru_stime

    times = []
    for _ in range(5):
        before = seconds()
        run("--help", cwd=tmp_path)
        times.append(seconds() - before)
    assert min(times) < 0.5


@pytest.mark.integration
def test_help_loads_nothing_heavy(tmp_path: Path) -> None:
    code = (
        "import sys, geocfl.cli; from typer.testing import CliRunner\n"
        "for name in sys.argv[1:]: assert CliRunner().invoke(geocfl.cli.app, [name, '--help']).exit_code == 0\n"
        f"print(*set(sys.modules).intersection({HEAVY}))"
    )
    done = subprocess.run(
        [sys.executable, "-c", code, *COMMANDS], cwd=tmp_path, check=True, capture_output=True, text=True
    )
    assert done.stdout.split() == []


@pytest.mark.parametrize("name", COMMANDS)
def test_every_command_has_examples_that_parse_and_are_not_wrapped(name: str) -> None:
    assert any(example.startswith(f"geocfl {name}") for example in examples(name))
    lines = [line.strip() for line in helped(name).splitlines()]
    for example in examples(name):
        assert example in lines, "one line at 80 columns"
        _, verb, *arguments = shlex.split(example)
        COMMANDS[verb].make_context(verb, arguments)


@pytest.mark.parametrize("name", COMMANDS)
def test_every_option_has_help_in_a_panel_of_readable_size(name: str) -> None:
    parameters = [parameter for parameter in COMMANDS[name].params if parameter.name != "help"]
    for parameter in parameters:
        assert parameter.help, parameter.name
        assert parameter.help.endswith("."), parameter.name
        assert len(parameter.help) < 250, parameter.name
    panels = Counter(parameter.rich_help_panel for parameter in parameters)
    assert max(panels.values()) <= 12
    text = "".join(helped(name, columns=300).split())
    for parameter in parameters:
        shown = parameter.help.replace("\\[", "[")
        assert "".join(shown.split()) in text, "no part of it was taken for markup"


@pytest.mark.parametrize("name", COMMANDS)
def test_the_first_line_says_what_a_command_does(name: str) -> None:
    first, _, _ = COMMANDS[name].help.partition("\n\n")
    assert first.endswith(".")
    assert len(first) <= 110
    assert max(map(len, helped(name).splitlines())) <= 80
    assert not re.search("<[a-z]", helped(name)), "no types such as <bool>"
    assert CliRunner().invoke(app, [name, "-h"], env={"COLUMNS": "80"}).stdout == helped(name)


@pytest.mark.integration
def test_help_is_plain_text_without_rich(tmp_path: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-c", "from geocfl.cli import app; app()", "map", "--help"],
        cwd=tmp_path, env=os.environ | {"TYPER_USE_RICH": "0"}, capture_output=True, text=True, check=True,
    )  # fmt: skip
    assert "--stride" in done.stdout
    assert "geocfl map scene.tif" in done.stdout

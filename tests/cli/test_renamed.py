"""Old spellings of options."""

from pathlib import Path

import pytest
from typer.main import get_command
from typer.testing import CliRunner

from geocfl.cli import app
from geocfl.cli.renamed import PRODUCT_FLAGS, REMOVED_IN, RENAMED, current_spelling
from tests.cli.program import run


@pytest.mark.parametrize(
    ("args", "current", "warnings"),
    [
        (["--views", "4"], ["--tta", "4"], ["--views is now called --tta"]),
        (["s.tif", "--views=4"], ["s.tif", "--tta=4"], ["--views is now called --tta"]),
        (["--", "--views"], ["--", "--views"], []),
        (["--workers", "2"], ["--workers", "2"], []),  # an option of this command
        (["--part", "test"], ["--part", "test"], []),  # the command has no --subset
        (["--sld"], ["--products", "default,sld"], ["--sld is now --products default,sld"]),
        (
            ["--sld", "--products", "lulc", "--entropy", "s.tif"],
            ["--products", "lulc,sld,entropy", "s.tif"],
            ["--sld is now", "--entropy is now"],
        ),
        (["--products=lulc", "--sld", "--", "s"], ["--products=lulc,sld", "--", "s"], ["--sld is now"]),
    ],
)
def test_old_spellings_become_new_ones(args: list[str], current: list[str], warnings: list[str]) -> None:
    warned: list[str] = []
    assert current_spelling(args, {"--tta", "--products", "--workers", "--machines"}, warned.append) == current
    assert [text.startswith(start) for text, start in zip(warned, warnings, strict=True)] == [True] * len(warned)


@pytest.mark.integration
def test_an_old_spelling_works_with_a_warning(tmp_path: Path) -> None:
    done = run("plan", "--workers", 0, cwd=tmp_path, code=2)
    first = f"warning: --workers is now called --machines and will be removed in {REMOVED_IN}"
    assert done.stderr.splitlines()[0] == first
    assert "--machines" in done.stderr.replace(first, "")


def test_old_spellings_are_neither_in_the_help_nor_completed() -> None:
    for name, command in get_command(app).commands.items():  # type: ignore[attr-defined]
        text = CliRunner().invoke(app, [name, "--help"]).stdout
        options = {option for parameter in command.params for option in parameter.opts}
        for old, new in [*RENAMED.items(), *((flag, "--products") for flag in PRODUCT_FLAGS)]:
            if new in options and old not in options:
                assert f"{old} " not in text

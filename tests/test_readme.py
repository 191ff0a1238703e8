"""The README, done by copy and paste: every block runs, in order, in a folder of generated stand-ins.

A block without a rule, a comment such as ``<!-- test: run -->`` above it, fails; `tests.snippets.Runner` has the rules.
What needs a server is asked of one on the loopback.
"""

from __future__ import annotations

import shutil
from collections.abc import Iterator

import pytest

from tests.scenes.range_server import RangeServer
from tests.snippets import ROOT, Block, Runner, blocks, write_stand_ins

README = ROOT / "README.md"


@pytest.fixture(scope="module")
def reader(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Runner]:
    folder = tmp_path_factory.mktemp("reader")
    write_stand_ins(folder)
    (folder / "demo").mkdir()
    shutil.copy(folder / "scene.tif", folder / "demo" / "demo_scene.tif")  # `make map` has written it
    with RangeServer(folder) as server:
        yield Runner(folder, server.url(""))


@pytest.mark.integration
@pytest.mark.parametrize("block", blocks(README), ids=str)
def test_block(reader: Runner, block: Block) -> None:
    reader.run(block)


def test_there_are_blocks_and_the_two_commands_are_first() -> None:
    first, *rest = blocks(README)
    assert [line.split("#")[0].strip() for line in first.text.splitlines()] == ["make map", "make test"]
    assert len(rest) > 8


@pytest.mark.integration
def test_a_block_without_a_rule_fails(reader: Runner) -> None:
    with pytest.raises(AssertionError, match="no rule"):
        reader.run(Block(README, 1, "sh", "", "geocfl --version\n"))


@pytest.mark.integration
def test_a_failing_command_and_an_unknown_extra_fail(reader: Runner) -> None:
    with pytest.raises(AssertionError, match="exit code"):
        reader.run(Block(README, 1, "sh", "run", "geocfl map nothing.tif\ngeocfl --version\n"))
    with pytest.raises(AssertionError, match="no such extra"):
        reader.run(Block(README, 1, "sh", "run", "pip install '.[nothing]'\n"))

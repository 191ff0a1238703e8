import json
from pathlib import Path

import pytest

from geocfl.cli.parse import transitions
from geocfl.errors import UsageError
from tests.analysis.test_change import write_map
from tests.cli.program import run


@pytest.mark.integration
def test_change(tmp_path: Path) -> None:
    write_map(tmp_path / "a", [[2, 2, 8]])
    write_map(tmp_path / "b", [[2, 8, 2]])
    command = ["change", "a_lulc.tif", "b_lulc.tif", "--out", "out/x_change.tif"]
    done = run(*command, "--forbid", "Residential>Forest", cwd=tmp_path)
    assert "Forest  Residential" in done.stdout
    assert "  out/x_change.html" in done.stdout.splitlines()
    assert "warning: " in done.stderr
    again = json.loads(run(*command, "--forbid", "Residential>Forest", "--json", cwd=tmp_path).stdout)
    assert again["changed"]["cells"] == 1
    other = run(*command, cwd=tmp_path, code=1)
    assert "--overwrite" in other.stderr
    misspelt = run(*command, "--forbid", "Residental>Forest", cwd=tmp_path, code=2)
    assert "--forbid: unknown class 'Residental'; did you mean 'Residential'?" in misspelt.stderr


def test_transitions() -> None:
    assert transitions(["Residential > Forest", "A>B"]) == (("Residential", "Forest"), ("A", "B"))
    assert transitions(None) == ()
    for text in ("Forest", "Forest>", ">"):
        with pytest.raises(UsageError, match="must look like"):
            transitions([text])

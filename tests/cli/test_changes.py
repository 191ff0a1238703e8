import json
from pathlib import Path

import pytest

from geocfl.cli.parse import transitions
from geocfl.errors import UsageError
from tests.analysis.test_change import write_map
from tests.analysis.test_comparison import write_other
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
    misspelt = run(*command, "--forbid", "Residentia>Forest", cwd=tmp_path, code=2)
    assert "--forbid: unknown class 'Residentia'; did you mean 'Residential'?" in misspelt.stderr


@pytest.mark.integration
def test_compare_maps(tmp_path: Path) -> None:
    write_map(tmp_path / "a", [[2, 2, 8]])
    write_other(tmp_path / "o.tif", [[10] * 48] * 16)
    (tmp_path / "c.csv").write_text("code,name,class\n10,Trees,Forest\n")
    command = ["compare-maps", "a_lulc.tif", "o.tif", "--legend", "c.csv"]
    done = run(*command, "--out", "t.csv", cwd=tmp_path)
    assert "Trees 100%" in done.stdout
    assert "66.7%" in done.stdout
    assert (tmp_path / "t.csv").is_file()
    rows = json.loads(run(*command, "--json", cwd=tmp_path).stdout)
    assert [row["agrees"] for row in rows] == [True, False]
    again = run(*command, "--out", "t.csv", cwd=tmp_path, code=1)
    assert "--overwrite" in again.stderr


def test_transitions() -> None:
    assert transitions(["Residential > Forest", "A>B"]) == (("Residential", "Forest"), ("A", "B"))
    assert transitions(None) == ()
    for text in ("Forest", "Forest>", ">"):
        with pytest.raises(UsageError, match="must look like"):
            transitions([text])

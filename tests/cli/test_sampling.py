import json
from pathlib import Path

import pandas as pd
import pytest

from geocfl.analysis.sample_files import read_points
from geocfl.cli import parse
from geocfl.errors import UsageError
from tests.analysis.sample_data import made_map
from tests.cli.program import run


def test_allocations_and_accuracies_are_parsed() -> None:
    assert parse.allocation("equal") == ("equal", 2)
    assert parse.allocation("rare:30") == ("proportional", 30)
    assert parse.accuracies("0.8") == 0.8
    assert parse.accuracies("Annual Crop=0.9, River=0.7") == {"Annual Crop": 0.9, "River": 0.7}
    assert parse.accuracies(None) is None
    for text in ("rare", "rare:", "rare:few"):
        with pytest.raises(UsageError, match="rare:30"):
            parse.allocation(text)
    for text in ("high", "Forest=high"):
        with pytest.raises(UsageError, match=r"0\.8 or Forest=0\.9"):
            parse.accuracies(text)


@pytest.mark.integration
def test_sample_and_assess(tmp_path: Path) -> None:
    made_map(tmp_path)
    done = run("sample", "S_lulc.tif", "--size", 60, "--allocation", "rare:5", "--csv", cwd=tmp_path)
    for name in ("sample.gpkg", "sample.qgz", "sample.csv"):
        assert f"  {name}" in done.stdout.splitlines()
    refused = run("sample", "S_lulc.tif", "--size", 60, cwd=tmp_path, code=1)
    assert "--overwrite" in refused.stderr
    unanswered = run("assess", "S_lulc.tif", "sample.gpkg", cwd=tmp_path, code=1)
    assert "has no answers" in unanswered.stderr
    points = read_points(tmp_path / "sample.gpkg")
    table = pd.DataFrame({"id": points["id"], "reference": points["map_class"]})
    table.iloc[:-1].to_csv(tmp_path / "answers.csv", index=False)
    command = ["assess", "S_lulc.tif", "sample.gpkg", "--answers", "answers.csv"]
    missing = run(*command, cwd=tmp_path, code=1)
    assert "use --missing-at-random if" in missing.stderr
    done = run(*command, "--missing-at-random", "--out", "out", cwd=tmp_path)
    assert "Overall accuracy: 100.0%" in done.stdout
    assert "  out/report.html" in done.stdout.splitlines()
    facts = json.loads(run(*command, "--missing-at-random", "--json", cwd=tmp_path).stdout)
    assert facts["points"] == 59
    assert facts["missing"] == 1

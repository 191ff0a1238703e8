import json
from pathlib import Path

import pytest
import torch

from geocfl.errors import OutputError
from geocfl.training.config import TrainSettings
from geocfl.training.run_folder import RUN_FILES, RunFolder

SETTINGS = TrainSettings(data="patches")


@pytest.mark.parametrize("text", ["", '{"data": "pat'])
def test_settings_that_were_cut_off_block_nothing(tmp_path: Path, text: str) -> None:
    (tmp_path / "config.json").write_text(text)
    run = RunFolder(tmp_path)
    assert not run.claim(SETTINGS, resume=True, overwrite=False)
    run.begin(SETTINGS)
    assert json.loads((tmp_path / "config.json").read_text()) == json.loads(json.dumps(SETTINGS.to_json()))


def test_settings_that_were_cut_off_are_those_of_the_checkpoint(tmp_path: Path) -> None:
    run = RunFolder(tmp_path)
    run.begin(SETTINGS)
    text = (tmp_path / "config.json").read_text()
    torch.save({"settings": json.dumps(SETTINGS.to_json())}, run.checkpoint)
    (tmp_path / "config.json").write_text("")
    assert run.claim(SETTINGS, resume=True, overwrite=False)
    assert (tmp_path / "config.json").read_text() == text


def test_metrics_that_were_cut_off_are_not_a_finished_run(tmp_path: Path) -> None:
    run = RunFolder(tmp_path)
    run.begin(SETTINGS)
    (tmp_path / "metrics.json").write_text("")
    assert not run.finished
    assert not run.claim(SETTINGS, resume=True, overwrite=False)
    (tmp_path / "metrics.json").write_text("{}")
    assert run.finished


def test_an_interrupted_deletion_leaves_a_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    run = RunFolder(tmp_path)
    for name in RUN_FILES:
        (tmp_path / name).write_text("{}")
    removed: list[str] = []
    whole = Path.unlink

    def interrupted(path: Path, missing_ok: bool = False) -> None:
        if len(removed) == len(RUN_FILES) - 1:
            raise KeyboardInterrupt
        removed.append(path.name)
        whole(path, missing_ok)

    monkeypatch.setattr(Path, "unlink", interrupted)
    with pytest.raises(KeyboardInterrupt):
        run.discard()
    assert [path.name for path in tmp_path.iterdir()] == ["config.json"]


def test_a_full_disk_is_named(tmp_path: Path) -> None:
    with pytest.raises(OutputError, match="No space left on device"), RunFolder(tmp_path).writing():
        raise OSError(28, "No space left on device")

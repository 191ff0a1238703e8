from __future__ import annotations

import pickle

import pytest
import torch

from geocfl.errors import ModelError
from geocfl.models.network import read_weights


class Malicious:
    def __reduce__(self):
        return print, ("this must not run",)


@pytest.mark.parametrize(
    "write",
    [
        lambda path: torch.save({"conv1.weight": Malicious()}, path),
        lambda path: path.write_bytes(pickle.dumps({"conv1.weight": Malicious()}, protocol=2)),
        lambda path: torch.save({"conv1.weight": "no tensor"}, path),
        lambda path: torch.save([1, 2], path),
        lambda path: path.write_bytes(b"neither"),
    ],
    ids=["code", "bare pickle", "text", "list", "noise"],
)
def test_files_of_more_than_tensors_are_refused(tmp_path, capsys, write):
    write(tmp_path / "w.pth")
    with pytest.raises(ModelError, match=r"w\.pth: not a readable weights file"):
        read_weights(tmp_path / "w.pth")
    assert "must not run" not in capsys.readouterr().out

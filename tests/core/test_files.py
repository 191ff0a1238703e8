import errno
import os
import subprocess
import sys
from pathlib import Path

import pytest

from geocfl.core.files import refuse_existing, replacing, unwritable, working_folder, write_whole
from geocfl.errors import OutputError


def test_what_a_killed_process_left_is_removed_by_the_next(tmp_path: Path) -> None:
    out = tmp_path / "zones.csv"
    code = (
        "import os, sys; from pathlib import Path; from geocfl.core.files import replacing\n"
        "with replacing(Path(sys.argv[1])) as partial: partial.write_text('half'); os._exit(9)"
    )
    subprocess.run([sys.executable, "-c", code, str(out)], check=False)
    assert len(list(tmp_path.iterdir())) == 1
    with replacing(out) as partial:
        partial.write_text("whole")
    assert [path.name for path in tmp_path.iterdir()] == ["zones.csv"]
    assert out.read_text() == "whole"
    subprocess.run([sys.executable, "-c", code, str(out)], check=False)
    with pytest.raises(OutputError, match="already exists"):
        refuse_existing(out, overwrite=False)
    assert [path.name for path in tmp_path.iterdir()] == ["zones.csv"]


@pytest.mark.parametrize(
    ("error", "remedy"),
    [
        (OSError(errno.ENOSPC, "No space left on device"), "device); free some space, or choose another `out`"),
        (OSError(errno.EACCES, "Permission denied"), "denied); choose another `out`"),
        (
            FileExistsError(errno.EEXIST, "File exists", "a.txt"),
            "(a.txt is a file, not a folder); choose another `out`",
        ),
        (RuntimeError("sqlite failed"), "(sqlite failed); free some space, or choose another `out`"),
    ],
)
def test_the_remedy_is_that_of_the_cause(tmp_path: Path, error: OSError | RuntimeError, remedy: str) -> None:
    assert str(unwritable(tmp_path, error)).endswith(remedy)


def test_a_folder_in_use_is_kept(tmp_path: Path) -> None:
    with working_folder(tmp_path, "a") as first:
        (first / "a").write_text("mine")
        with working_folder(tmp_path, "a") as second:
            assert second != first
        assert (first / "a").read_text() == "mine"
    assert not list(tmp_path.iterdir())


def test_other_hidden_folders_are_kept(tmp_path: Path) -> None:
    (tmp_path / ".a.b").mkdir()
    (tmp_path / ".a.b" / "mine").touch()
    with replacing(tmp_path / "a") as partial:
        partial.touch()
    assert (tmp_path / ".a.b" / "mine").exists()


def test_a_failed_write_leaves_the_old_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_whole(tmp_path / "a", b"old")

    def full(path: Path, content: bytes) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(Path, "write_bytes", full)
    with pytest.raises(OSError, match="No space"):
        write_whole(tmp_path / "a", b"new")
    assert (tmp_path / "a").read_text() == "old"
    assert os.listdir(tmp_path) == ["a"]


def test_names_as_long_as_file_systems_allow(tmp_path: Path) -> None:
    name = "a" * 255
    write_whole(tmp_path / name, b"content")
    assert os.listdir(tmp_path) == [name]
    with pytest.raises(OutputError, match="cannot be written"), replacing(tmp_path / f"{name}a") as partial:
        partial.touch()

import errno
import json
import logging
import os
import shutil
import subprocess
import sys
import threading
from pathlib import Path
from types import SimpleNamespace

import pytest

from geocfl.errors import OutputError, SceneError, UsageError
from geocfl.products.files import SUFFIXES, SUMMARY
from geocfl.products.lock import BusyError
from geocfl.products.staging import Staging


def write_all(staging, text="new"):
    for suffix in SUFFIXES:
        staging.path(suffix).write_text(json.dumps({"hash": text}) if suffix == SUMMARY else text)


def finish(out, digest="h1", **options):
    with Staging(out, "S", digest, **options) as staging:
        state = staging.state
        if state != "done":
            write_all(staging, digest)
            staging.commit()
    return state


def break_off(out, error, digest="h1", **options):
    with Staging(out, "S", digest, **options) as staging:
        write_all(staging, digest)
        (staging.folder / "cells.tif").write_text("half")
        raise error


def contents(out):
    return {path.name: path.read_text() for path in out.iterdir() if path.is_file()}


def test_puts_all_into_place_and_then_is_done(tmp_path):
    out = tmp_path / "deep" / "out"
    assert finish(out) == "new"
    assert sorted(contents(out)) == sorted(f"S{suffix}" for suffix in SUFFIXES)
    assert not (out / ".S.partial").exists()
    assert finish(out) == "done"


def test_nothing_lies_in_place_before_the_commit(tmp_path):
    with Staging(tmp_path, "S", "h1") as staging:
        write_all(staging)
        assert sorted(path.name for path in tmp_path.iterdir()) == [".S.lock", ".S.partial"]
        staging.commit()


def test_the_summary_comes_last_and_its_forerunner_goes_first(tmp_path, monkeypatch):
    finish(tmp_path, "h1")
    seen = []
    replace = os.replace

    def spy(source, target):
        seen.append((target.name, (tmp_path / "S_summary.json").exists()))
        replace(source, target)

    monkeypatch.setattr(os, "replace", spy)
    finish(tmp_path, "h2", overwrite=True)
    assert [name for name, _ in seen] == [f"S{suffix}" for suffix in SUFFIXES]
    assert not any(summary for _, summary in seen)


def test_an_interrupt_keeps_the_work_and_it_is_continued(tmp_path):
    with pytest.raises(KeyboardInterrupt):
        break_off(tmp_path, KeyboardInterrupt())
    with Staging(tmp_path, "S", "h1") as staging:
        assert staging.state == "continue"
        assert (staging.folder / "cells.tif").read_text() == "half"


def test_partial_work_of_other_settings_is_dropped(tmp_path):
    with pytest.raises(KeyboardInterrupt):
        break_off(tmp_path, KeyboardInterrupt())
    with Staging(tmp_path, "S", "h2") as staging:
        assert staging.state == "new"
        assert not (staging.folder / "cells.tif").exists()


def test_a_failure_leaves_nothing(tmp_path):
    out = tmp_path / "deep" / "out"
    with pytest.raises(RuntimeError, match="broken"):
        break_off(out, RuntimeError("broken"))
    assert list(tmp_path.iterdir()) == []


def test_a_failure_leaves_what_was_there(tmp_path):
    finish(tmp_path, "h1")
    before = contents(tmp_path)
    with pytest.raises(RuntimeError):
        break_off(tmp_path, RuntimeError(), "h2", overwrite=True)
    assert contents(tmp_path) == before
    assert not (tmp_path / ".S.partial").exists()


@pytest.mark.parametrize("suffix", SUFFIXES)
def test_a_product_in_the_way_is_refused(tmp_path, suffix):
    in_the_way = tmp_path / f"S{suffix}"
    in_the_way.write_text("mine")
    with pytest.raises(OutputError, match=r"`overwrite=True`") as refusal:
        finish(tmp_path)
    assert str(in_the_way) in str(refusal.value)
    assert contents(tmp_path) == {in_the_way.name: "mine"}
    assert finish(tmp_path, overwrite=True) == "new"
    assert contents(tmp_path)["S_lulc.tif"] == "h1"


def test_done_needs_every_product(tmp_path):
    finish(tmp_path)
    (tmp_path / "S_lulc.gpkg").unlink()
    with pytest.raises(OutputError, match="`overwrite=True`"):
        finish(tmp_path)


def test_other_scenes_and_files_are_left_alone(tmp_path):
    (tmp_path / "T_lulc.tif").write_text("other")
    (tmp_path / "S.tif").write_text("scene")
    finish(tmp_path)
    assert contents(tmp_path)["T_lulc.tif"] == "other"
    assert contents(tmp_path)["S.tif"] == "scene"


def test_overwriting_with_fewer_products_leaves_no_stale_ones(tmp_path):
    finish(tmp_path, "h1")
    products = [suffix for suffix in SUFFIXES if suffix != "_preview.png"]
    with Staging(tmp_path, "S", "h2", overwrite=True, suffixes=products) as staging:
        write_all(staging, "h2")
        staging.commit()
    assert not (tmp_path / "S_preview.png").exists()
    with Staging(tmp_path, "S", "h2", suffixes=products) as staging:
        assert staging.state == "done"


@pytest.mark.parametrize("moves", range(len(SUFFIXES)))
def test_a_commit_cut_short_is_finished(tmp_path, monkeypatch, moves):
    finish(tmp_path, "h1")
    replace, left = os.replace, [moves]

    def crash(source, target):
        if not left[0]:
            raise KeyboardInterrupt
        left[0] -= 1
        replace(source, target)

    monkeypatch.setattr(os, "replace", crash)
    with pytest.raises(KeyboardInterrupt):
        finish(tmp_path, "h2", overwrite=True)
    assert not (tmp_path / "S_summary.json").exists()
    monkeypatch.undo()
    assert finish(tmp_path, "h2") == "done"
    assert set(contents(tmp_path).values()) == {"h2", '{"hash": "h2"}'}
    assert not (tmp_path / ".S.partial").exists()


def crash_while_removing(monkeypatch, steps):
    """Raises KeyboardInterrupt in place of the removal of the entry after `steps` others."""
    left = [steps]

    def crashing(real):
        def step(path, *rest, **options):
            if ".S.partial" in str(path):
                if not left[0]:
                    raise KeyboardInterrupt
                left[0] -= 1
            return real(path, *rest, **options)

        return step

    monkeypatch.setattr(Path, "unlink", crashing(Path.unlink))
    monkeypatch.setattr(Path, "rmdir", crashing(Path.rmdir))


def work(out, then):
    with Staging(out, "S", "h1") as staging:
        write_all(staging, "h1")
        for name in ("cells", "aaa"):
            (staging.folder / name).write_text("work")
        then(staging)


@pytest.mark.parametrize("steps", range(5))
def test_a_crash_after_the_summary_is_tidied_up(tmp_path, monkeypatch, steps):
    with monkeypatch.context() as patch:
        crash_while_removing(patch, steps)
        with pytest.raises(KeyboardInterrupt):
            work(tmp_path, Staging.commit)
    assert finish(tmp_path) == "done"
    assert len(contents(tmp_path)) == len(SUFFIXES)
    assert not (tmp_path / ".S.partial").exists()
    finish(tmp_path, "h2", overwrite=True)
    assert not (tmp_path / ".S.partial").exists()


@pytest.mark.parametrize("steps", range(4))
def test_a_crash_while_failed_work_is_removed_blocks_nothing(tmp_path, monkeypatch, steps):
    with monkeypatch.context() as patch:
        crash_while_removing(patch, steps)
        with pytest.raises(KeyboardInterrupt):
            work(tmp_path, lambda staging: 1 / 0)
    assert (tmp_path / ".S.partial").exists()
    assert finish(tmp_path, "h2") == "new"
    assert not (tmp_path / ".S.partial").exists()


def test_a_transient_error_keeps_the_work(tmp_path):
    with pytest.raises(SceneError):
        break_off(tmp_path, SceneError("the server failed", transient=True))
    with Staging(tmp_path, "S", "h1") as staging:
        assert staging.state == "continue"
        assert (staging.folder / "cells.tif").read_text() == "half"


def test_a_folder_that_is_removed_during_the_work_is_named(tmp_path):
    def remove(staging):
        shutil.rmtree(tmp_path / "out")
        staging.path("_lulc.tif").write_text("new")

    with pytest.raises(OutputError, match="was removed or renamed during the work"):
        work(tmp_path / "out", remove)


@pytest.mark.skipif(sys.platform == "win32", reason="no limits of file sizes")
def test_a_limit_of_file_sizes_is_named(tmp_path):
    with pytest.raises(OutputError, match="takes no file that large"):
        break_off(tmp_path, OSError(errno.EFBIG, "File too large"))
    assert list(tmp_path.iterdir()) == []


@pytest.mark.skipif(sys.platform == "win32", reason="there are no such limits")
def test_a_limit_of_file_sizes_is_recognized_behind_gdal(tmp_path, monkeypatch):
    monkeypatch.setattr("resource.getrlimit", lambda which: (2 << 20, 2 << 20))
    with pytest.raises(ZeroDivisionError):  # what has nothing to do with files
        break_off(tmp_path, ZeroDivisionError)
    with Staging(tmp_path, "S", "h1") as staging:
        staging.path("_lulc.tif").write_bytes(bytes(2 << 20))
        (staging.folder / "cells").write_bytes(bytes(2 << 20))
    with pytest.raises(OutputError, match="takes no file that large"):
        break_off(tmp_path, RuntimeError("GDAL failed"))


def test_products_are_on_the_disk_before_they_are_moved(tmp_path, monkeypatch):
    events, fsync, replace = [], os.fsync, os.replace
    monkeypatch.setattr(os, "fsync", lambda number: (events.append(os.fstat(number).st_ino), fsync(number)))
    monkeypatch.setattr(os, "replace", lambda *paths: (events.append(paths[1].name), replace(*paths)))
    finish(tmp_path)
    for suffix in SUFFIXES:
        name = f"S{suffix}"
        assert events.index((tmp_path / name).stat().st_ino) < events.index(name)


def test_a_forgotten_product_is_not_committed(tmp_path):
    with pytest.raises(OutputError, match="cannot be written to"), Staging(tmp_path, "S", "h1") as staging:
        staging.commit()
    assert list(tmp_path.iterdir()) == []


def test_an_output_path_through_a_file_is_refused(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(OutputError, match=r"cannot be written to .*`out`"):
        finish(tmp_path / "file" / "out")
    with pytest.raises(OutputError, match="`out`"):
        finish(tmp_path / "file")
    assert contents(tmp_path) == {"file": ""}


def test_a_read_only_folder_is_refused(tmp_path):
    if os.geteuid() == 0:
        pytest.skip("nothing is read-only to root")
    tmp_path.chmod(0o555)
    with pytest.raises(OutputError, match=r"Permission denied"):
        finish(tmp_path)


def test_a_file_system_that_takes_no_folders_is_refused(tmp_path, monkeypatch):
    def refuse(*args, **options):
        raise OSError(errno.EROFS, "Read-only file system")

    monkeypatch.setattr("pathlib.Path.mkdir", refuse)
    with pytest.raises(OutputError, match="Read-only file system"):
        finish(tmp_path)


def test_a_foreign_folder_is_not_deleted(tmp_path):
    (tmp_path / ".S.partial").mkdir()
    (tmp_path / ".S.partial" / "letter").write_text("dear")
    with pytest.raises(OutputError, match="already exists"):
        finish(tmp_path, overwrite=True)
    assert (tmp_path / ".S.partial" / "letter").read_text() == "dear"


def test_a_folder_named_like_a_product_is_not_deleted(tmp_path):
    (tmp_path / "S_lulc.tif").mkdir()
    with pytest.raises(OutputError, match="is a folder"):
        finish(tmp_path, overwrite=True)


def test_a_full_disk_is_named(tmp_path):
    with pytest.raises(OutputError, match="disk is full"):
        break_off(tmp_path, OSError(errno.ENOSPC, "No space left on device"))
    assert list(tmp_path.iterdir()) == []


def test_a_full_disk_is_recognized_behind_gdal(tmp_path, monkeypatch):
    from rasterio.errors import RasterioIOError

    with pytest.raises(RasterioIOError):
        break_off(tmp_path, RasterioIOError("Write failed"))
    monkeypatch.setattr("shutil.disk_usage", lambda path: SimpleNamespace(free=0))
    with pytest.raises(OutputError, match="disk is full"):
        break_off(tmp_path, RasterioIOError("Write failed"))


def test_a_broken_summary_is_in_the_way(tmp_path):
    for suffix in SUFFIXES:
        (tmp_path / f"S{suffix}").write_text("[]")
    with pytest.raises(OutputError, match="`overwrite=True`"):
        finish(tmp_path)


AT_WORK = """
import sys, time
from geocfl.products.staging import Staging
with Staging(sys.argv[1], "S", sys.argv[2], overwrite=len(sys.argv) > 3) as staging:
    (staging.folder / "cells.tif").write_text("half")
    print(staging.state, flush=True)
    sys.stdin.readline()
    raise SystemExit
"""


@pytest.fixture
def another():
    """Starts another process that is at work on the scene, until it is told to fail or killed."""
    processes = []

    def start(out: Path, digest: str = "h1", *options: str) -> subprocess.Popen[str]:
        command = [sys.executable, "-c", AT_WORK, str(out), digest, *options]
        process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
        processes.append(process)
        assert process.stdout.readline() == "new\n"
        return process

    yield start
    for process in processes:
        process.kill()
        process.communicate()


@pytest.mark.parametrize("digest", ["h1", "h2"])
def test_one_at_a_time_works_on_a_scene(tmp_path, another, digest):
    process = another(tmp_path)
    with pytest.raises(BusyError, match=r"another geocfl is working on S there; wait for it, or stop it"):
        finish(tmp_path, digest, overwrite=True)
    assert (tmp_path / ".S.partial" / "cells.tif").read_text() == "half"
    with Staging(tmp_path, "T", "h1") as other:
        assert other.state == "new"
    process.communicate("fail\n")
    assert sorted(path.name for path in tmp_path.iterdir()) == [".T.partial"]
    assert finish(tmp_path, digest) == "new"
    assert not list(tmp_path.glob("*.lock"))


def test_a_process_that_is_killed_lets_go(tmp_path, another):
    process = another(tmp_path / "out")
    process.kill()
    process.wait()
    with Staging(tmp_path / "out", "S", "h1") as staging:
        assert staging.state == "continue"
        assert (staging.folder / "cells.tif").read_text() == "half"
        write_all(staging, "h1")
        staging.commit()
    assert {path.name for path in (tmp_path / "out").iterdir()} == {f"S{suffix}" for suffix in SUFFIXES}


def test_what_is_done_is_told_without_the_lock(tmp_path, another):
    finish(tmp_path, "h1")
    another(tmp_path, "h2", "overwrite")
    with pytest.raises(BusyError):  # what it overwrites may be gone at any time
        finish(tmp_path, "h1")
    read_only = tmp_path / "more"
    finish(read_only)
    assert [path.name for path in read_only.glob(".*")] == []
    assert finish(read_only) == "done"


def test_the_lock_of_a_process_that_was_killed_when_all_was_done_is_removed(tmp_path):
    finish(tmp_path)
    (tmp_path / ".S.lock").touch()
    assert finish(tmp_path) == "done"
    assert not list(tmp_path.glob(".*"))


def test_threads_keep_each_other_out(tmp_path):
    seen = []
    waiting = threading.Barrier(4)

    def work():
        waiting.wait()
        try:
            with Staging(tmp_path / "out", "S", "h1") as staging:
                seen.append(staging.state)
                finished.wait(20)
                write_all(staging, "h1")
                staging.commit()
        except BusyError:
            seen.append("busy")
            if seen.count("busy") == 3:
                finished.set()

    finished = threading.Event()
    threads = [threading.Thread(target=work) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(seen) == ["busy", "busy", "busy", "new"]
    assert finish(tmp_path / "out") == "done"


def test_a_folder_that_goes_away_is_made_again(tmp_path):
    """Scenes that fail remove a folder that they have made, while others are about to use it."""
    failures = []

    def work(name):
        for _ in range(40):
            try:
                with Staging(tmp_path / "deep" / "out", name, "h1"):
                    raise ValueError
            except ValueError:
                pass
            except BaseException as error:
                failures.append(error)

    threads = [threading.Thread(target=work, args=(name,)) for name in "ABC"]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert failures == []
    assert not [path for path in tmp_path.rglob("*") if path.is_file()]


@pytest.mark.parametrize("number", [errno.ENOLCK, errno.ENOSYS, errno.EOPNOTSUPP])
def test_a_file_system_without_locks_will_do(tmp_path, monkeypatch, caplog, number):
    def refuse(*_):
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr("fcntl.flock", refuse)
    with caplog.at_level(logging.DEBUG, "geocfl"):
        assert finish(tmp_path) == "new"
    assert "the file system has no locks" in caplog.text
    assert not list(tmp_path.glob(".*"))


def test_a_lock_that_cannot_be_written_is_refused(tmp_path, monkeypatch):
    (tmp_path / ".S.lock").mkdir()
    with pytest.raises(OutputError, match=r"cannot be written to .*`out`"):
        finish(tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == [".S.lock"]


def test_leaving_an_unfinished_scene_keeps_it_and_lets_go(tmp_path):
    with Staging(tmp_path, "S", "h1") as staging:
        (staging.folder / "cells.tif").write_text("half")
    with Staging(tmp_path, "S", "h1") as staging:
        assert staging.state == "continue"


def test_products_that_a_killed_run_was_at_are_made_anew(tmp_path):
    with Staging(tmp_path, "S", "h") as staging:
        for name in ("_lulc.gpkg", "_lulc.gpkg-journal", "_lulc.tif"):
            (staging.folder / f"S{name}").write_text("half")
        (staging.folder / "cells").write_text("of the checkpoint")
    with Staging(tmp_path, "S", "h") as staging:
        assert staging.state == "continue"
        assert {path.name for path in staging.folder.iterdir()} == {"hash", "cells"}


def test_a_name_that_is_too_long_is_named(tmp_path):
    with pytest.raises(OutputError, match="rename the scene"), Staging(tmp_path, "S" * 250, "h1"):
        pass
    with pytest.raises(OutputError, match="rename the scene"), Staging(tmp_path, "S" * 235, "h1"):
        pass  # its partial folder would fit, but not its products
    with pytest.raises(OutputError, match="choose another `out`"), Staging(tmp_path / ("o" * 300), "S", "h1"):
        pass
    assert list(tmp_path.iterdir()) == []


@pytest.mark.skipif(sys.platform == "win32", reason="there are no such names")
def test_names_that_cannot_be_written_are_refused_before_the_work(tmp_path):
    with pytest.raises(OutputError, match="control characters"), Staging(tmp_path, "a\nb", "h1"):
        pass
    with pytest.raises(UsageError, match="not UTF-8; use another name"):
        Staging(tmp_path / os.fsdecode(b"\xff"), "S", "h1")
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("names", [("cells", "S_lulc.tif"), ("checkpoint.jsonl", "cells.hdr", "thumbnail"), ()])
def test_what_an_older_version_left_without_a_hash_blocks_nothing(tmp_path, names):
    (tmp_path / ".S.partial").mkdir()
    for name in names:
        (tmp_path / ".S.partial" / name).write_text("half")
    assert finish(tmp_path) == "new"
    assert len(contents(tmp_path)) == len(SUFFIXES)
    assert not (tmp_path / ".S.partial").exists()

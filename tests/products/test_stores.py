"""Products in object stores: whole or not at all there, too, and found again by who made them."""

from __future__ import annotations

import json
import os
import re
import sys
import time
import uuid
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from geocfl.errors import OutputError, UsageError
from geocfl.products import claims, staging
from geocfl.products.files import SUFFIXES, SUMMARY
from geocfl.products.formats.catalog import write_catalog
from geocfl.products.lock import BusyError
from geocfl.products.staging import Staging
from geocfl.products.storage import in_store, output_folder, put
from tests.products.test_staging import finish, write_all

upath = pytest.importorskip("upath", reason="universal-pathlib is not installed")
ALL = sorted(f"S{suffix}" for suffix in SUFFIXES)


@pytest.fixture(scope="module")
def s3() -> Iterator[dict[str, Any]]:
    """An S3 server on this machine."""
    server_module = pytest.importorskip("moto.server", reason="moto is not installed")
    pytest.importorskip("s3fs", reason="s3fs is not installed")
    server = server_module.ThreadedMotoServer("127.0.0.1", port=0, verbose=False)
    server.start()
    host, port = server.get_host_and_port()
    yield {"endpoint_url": f"http://{host}:{port}", "key": "k", "secret": "s"}
    server.stop()


@pytest.fixture(autouse=True)
def scratch(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The folder for temporary files, to see what stays in it."""
    folder = tmp_path / "scratch"
    folder.mkdir()
    monkeypatch.setattr("tempfile.tempdir", str(folder))
    return folder


@pytest.fixture(params=["memory", pytest.param("s3", marks=pytest.mark.integration)])
def out(request: pytest.FixtureRequest) -> Any:
    """A folder of a store."""
    bucket = f"bucket-{uuid.uuid4().hex}"
    if request.param == "memory":
        return upath.UPath(f"memory://{bucket}/maps")
    options = request.getfixturevalue("s3")
    folder = upath.UPath(f"s3://{bucket}/maps", **options)
    folder.fs.mkdir(bucket)
    return folder


def content(out: Any) -> dict[str, str]:
    out.fs.invalidate_cache()
    return {path.name: path.read_text() for path in out.glob("*")} if out.exists() else {}


def fail_after(monkeypatch: pytest.MonkeyPatch, uploads: int, error: BaseException) -> list[str]:
    """Makes uploads fail after so many; returns the names of those that were tried."""
    tried: list[str] = []

    def failing(source: Path, target: Path) -> None:
        tried.append(target.name)
        if len(tried) > uploads:
            raise error
        put(source, target)

    monkeypatch.setattr(staging, "put", failing)
    return tried


def break_off(out: Any, error: BaseException, digest: str = "h1", **options: Any) -> None:
    with Staging(out, "S", digest, **options) as work:
        write_all(work, digest)
        (work.folder / "cells.tif").write_text("half")
        raise error


def test_puts_all_into_place_and_then_is_done(out: Any, scratch: Path) -> None:
    assert finish(out) == "new"
    assert sorted(content(out)) == ALL
    assert content(out)["S_lulc.tif"] == "h1"
    assert finish(out) == "done"
    assert list(scratch.iterdir()) == []
    with Staging(out, "S", "h1") as work:
        assert str(work.target("_lulc.tif")) == f"{out}/S_lulc.tif"
        assert work.target("_lulc.tif").read_text() == "h1"


def test_products_are_made_on_this_machine_and_come_at_the_end(out: Any, scratch: Path) -> None:
    with Staging(out, "S", "h1") as work:
        write_all(work, "h1")
        assert scratch in work.folder.parents
        assert os.stat(work.folder.parent).st_mode & 0o077 == 0
        assert [*content(out)] == [".S.partial"]
    assert content(out) == {}


def test_the_summary_comes_last(out: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    tried = fail_after(monkeypatch, 99, AssertionError())
    finish(out)
    assert tried == [f"S{suffix}" for suffix in SUFFIXES]
    assert tried[-1] == f"S{SUMMARY}"


def test_products_of_other_work_are_refused(out: Any, scratch: Path) -> None:
    (out / "S_lulc.gpkg").write_text("mine")
    (out / "T_lulc.tif").write_text("other")
    with pytest.raises(OutputError, match=r"/maps/S_lulc\.gpkg: already exists, .*`overwrite=True`"):
        finish(out)
    assert content(out) == {"S_lulc.gpkg": "mine", "T_lulc.tif": "other"}
    assert list(scratch.iterdir()) == []
    assert finish(out, overwrite=True) == "new"
    assert sorted(content(out)) == sorted([*ALL, "T_lulc.tif"])
    assert content(out)["S_lulc.gpkg"] == "h1"


def test_overwriting_with_fewer_products_leaves_no_stale_ones(out: Any) -> None:
    finish(out)
    products = ["_lulc.tif", SUMMARY]
    with Staging(out, "S", "h2", overwrite=True, suffixes=products) as work:
        write_all(work, "h2")
        work.commit()
    assert content(out) == {"S_lulc.tif": "h2", "S_summary.json": '{"hash": "h2"}'}


@pytest.mark.parametrize(
    ("uploads", "error"),
    [(0, OSError("connection reset")), (7, RuntimeError("throttled")), (len(SUFFIXES) - 1, KeyboardInterrupt())],
)
def test_an_upload_that_breaks_off_goes_on(
    out: Any, scratch: Path, monkeypatch: pytest.MonkeyPatch, uploads: int, error: BaseException
) -> None:
    """On the same machine without mapping the scene again."""
    finish(out, "h0")
    with monkeypatch.context() as patch:
        fail_after(patch, uploads, error)
        expected = KeyboardInterrupt if isinstance(error, KeyboardInterrupt) else OutputError
        with pytest.raises(expected) as caught:
            finish(out, "h1", overwrite=True)
    if expected is OutputError:
        assert f"{out}: cannot be written to ({error}); run the same command again" in str(caught.value)
    assert f"S{SUMMARY}" not in content(out)
    assert json.loads(content(out)[".S.partial"]) == {"upload": "h1"}
    assert finish(out, "h1") == "done"
    assert sorted(content(out)) == ALL
    assert set(content(out).values()) == {"h1", '{"hash": "h1"}'}
    assert list(scratch.iterdir()) == []


def test_leftovers_of_this_very_work_are_no_obstacle_on_another_machine(
    out: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with monkeypatch.context() as patch:
        fail_after(patch, 5, OSError("connection reset"))
        with pytest.raises(OutputError):
            finish(out)
    assert len(content(out)) == 6
    (tmp_path / "elsewhere").mkdir()
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path / "elsewhere"))
    with pytest.raises(OutputError, match="already exists"):
        finish(out, "h2")
    with pytest.raises(RuntimeError):
        break_off(out, RuntimeError())  # may still go on the next time
    assert finish(out) == "new"
    assert sorted(content(out)) == ALL


def test_overwriting_that_broke_off_early_does_not_allow_to_overwrite(out: Any) -> None:
    finish(out, "h1")
    with pytest.raises(KeyboardInterrupt):
        break_off(out, KeyboardInterrupt(), "h2", overwrite=True)
    with pytest.raises(OutputError, match="already exists"):
        finish(out, "h2")
    assert sorted(content(out)) == ALL
    assert finish(out, "h1") == "done"


def test_an_interrupt_keeps_the_work_and_a_failure_does_not(out: Any, scratch: Path) -> None:
    with pytest.raises(KeyboardInterrupt):
        break_off(out, KeyboardInterrupt())
    assert content(out) == {}
    with Staging(out, "S", "h1") as work:
        assert work.state == "continue"
        assert (work.folder / "cells.tif").read_text() == "half"
    with pytest.raises(RuntimeError):
        break_off(out, RuntimeError())
    assert content(out) == {}
    assert list(scratch.iterdir()) == []


def test_one_at_a_time_on_one_machine(out: Any) -> None:
    with Staging(out, "S", "h1") as work:
        with pytest.raises(BusyError, match=rf"{re.escape(str(out))}: another geocfl is working on S there"):
            finish(out)
        with Staging(out, "T", "h1"):
            pass
        write_all(work, "h1")
        work.commit()
    assert finish(out) == "done"


@pytest.fixture
def elsewhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[[], Any]:
    """Lets a block of code run as on another machine."""

    @contextmanager
    def moved() -> Iterator[None]:
        (tmp_path / "elsewhere").mkdir(exist_ok=True)
        here = claims._here()
        with monkeypatch.context() as patch:
            patch.setattr("tempfile.tempdir", str(tmp_path / "elsewhere"))
            patch.setattr(claims, "_here", lambda: here | {"host": "other", "pid": 77})
            yield

    return moved


def test_one_machine_at_a_time(out: Any, elsewhere: Callable[[], Any]) -> None:
    with Staging(out, "S", "h1") as work:
        for digest in ("h1", "h2"):
            with elsewhere(), pytest.raises(BusyError, match=r"another geocfl is working on S there \(process \d+ on "):
                finish(out, digest, overwrite=True)
        write_all(work, "h1")
        work.commit()
    assert content(out)["S_lulc.tif"] == "h1"
    with elsewhere():
        assert finish(out, "h2", overwrite=True) == "new"
    assert content(out)["S_lulc.tif"] == "h2"
    assert sorted(content(out)) == ALL


def test_two_machines_that_begin_at_once(
    out: Any, elsewhere: Callable[[], Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    """The store decides, although both have seen no claim."""
    with Staging(out, "S", "h1"):
        with elsewhere(), monkeypatch.context() as patch:
            read = claims.Claim._read
            seen: list[None] = []

            def late(claim: claims.Claim) -> Any:
                if not seen:
                    seen.append(None)
                    return None
                return read(claim)

            patch.setattr(claims.Claim, "_read", late)
            with pytest.raises(BusyError):
                finish(out, "h1")
        assert seen


def test_a_claim_that_is_not_renewed_is_taken_over(out: Any, elsewhere: Callable[[], Any]) -> None:
    """What had lost it replaces nothing."""
    work = Staging(out, "S", "h1").__enter__()
    write_all(work, "h1")
    mark = out / ".S.partial"
    old = json.loads(mark.read_text()) | {"renewed": time.time() - claims.LEASE - 1}
    mark.write_text(json.dumps(old | {"host": "first"}))
    with elsewhere(), Staging(out, "S", "h2") as other:
        write_all(other, "h2")
        with pytest.raises(BusyError, match="process 77 on other"):
            work.commit()
        work.__exit__(None, None, None)
        other.commit()
    assert content(out)["S_lulc.tif"] == "h2"
    assert sorted(content(out)) == ALL


def test_a_claim_of_a_killed_process_on_this_machine_is_taken_over(out: Any) -> None:
    dead = claims._here() | {"started": 0.0, "renewed": time.time(), "id": "x", "upload": ""}
    (out / ".S.partial").write_text(json.dumps(dead))
    assert finish(out) == "new"
    assert sorted(content(out)) == ALL


@pytest.mark.parametrize("text", ["h0", "[]", "{}", '{"renewed": "soon"}', "\0"])
def test_a_claim_that_says_nothing_is_none(out: Any, text: str) -> None:
    (out / ".S.partial").write_text(text)
    assert finish(out) == "new"
    assert sorted(content(out)) == ALL


def test_a_claim_is_renewed(out: Any, elsewhere: Callable[[], Any], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(claims, "RENEWAL", 0.02)
    mark = out / ".S.partial"
    with Staging(out, "S", "h1"):
        first = json.loads(out.fs.cat_file(mark.path))["renewed"]
        for _ in range(200):
            time.sleep(0.02)
            if json.loads(out.fs.cat_file(mark.path) or b"{}").get("renewed", first) > first:
                break
        else:
            raise AssertionError("not renewed")
    assert content(out) == {}


def test_a_store_without_conditions_is_still_claimed(out: Any, monkeypatch: pytest.MonkeyPatch, elsewhere: Any) -> None:
    pipe = type(out.fs).pipe_file

    def simple(fs: Any, path: str, value: bytes, mode: str = "overwrite", **more: Any) -> Any:
        if mode == "create":
            raise NotImplementedError("A header you provided implies functionality that is not implemented")
        return pipe(fs, path, value, **more)

    monkeypatch.setattr(type(out.fs), "pipe_file", simple)
    with Staging(out, "S", "h1"), elsewhere(), pytest.raises(BusyError):
        finish(out)


def test_done_needs_every_product(out: Any) -> None:
    finish(out)
    (out / "S_preview.png").unlink()
    with pytest.raises(OutputError, match="`overwrite=True`"):
        finish(out)


def test_what_others_have_written_since_counts(out: Any) -> None:
    assert content(out) == {}
    list(out.parent.glob("*"))  # kept by fsspec
    other = upath.UPath(str(out), **out.storage_options, skip_instance_cache=True)
    finish(other)
    assert finish(out) == "done"


def test_a_bucket_that_is_not_there_is_said_at_once(s3: dict[str, Any], scratch: Path) -> None:
    out = upath.UPath("s3://no-such-bucket/maps", **s3)
    with pytest.raises(OutputError, match=r"s3://no-such-bucket/maps: cannot be written to \(.*bucket.*\); check"):
        Staging(out, "S", "h1").__enter__()
    assert list(scratch.iterdir()) == []


def test_a_server_that_is_not_there_is_said_at_once(scratch: Path) -> None:
    pytest.importorskip("s3fs", reason="s3fs is not installed")
    options = {"endpoint_url": "http://127.0.0.1:9", "key": "k", "secret": "s"}
    options["config_kwargs"] = {"retries": {"max_attempts": 1}}  # type: ignore[assignment]
    with pytest.raises(OutputError, match=r"s3://bucket/maps: cannot be written to \(.*127\.0\.0\.1.*\); check"):
        Staging(upath.UPath("s3://bucket/maps", **options), "S", "h1").__enter__()
    assert list(scratch.iterdir()) == []


def test_another_users_scratch_is_not_used(out: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("os.getuid", lambda: 12345)
    with pytest.raises(OutputError, match="belongs to another user"):
        finish(out)


def test_addresses() -> None:
    assert output_folder("maps") == Path("maps")
    assert output_folder(Path("maps/a b")) == Path("maps/a b")
    assert output_folder("file:///tmp/a%20b") == Path("/tmp/a b")
    assert output_folder(upath.UPath("/tmp/maps")) == Path("/tmp/maps")
    assert not in_store(output_folder(upath.UPath("file:///tmp/maps")))
    assert in_store(output_folder("memory://bucket/maps"))
    assert str(output_folder("memory://bucket/maps")) == "memory://bucket/maps"


@pytest.mark.parametrize(
    ("address", "message"),
    [
        ("nosuch://bucket/maps", r"nosuch://bucket/maps: cannot be written to \(.*nosuch.*\); choose"),
        ("https://example.com/maps", r"https://example\.com/maps: cannot be written to \(web servers"),
        (Path("s3://bucket/maps"), r"s3:/bucket/maps: a Path drops a slash"),
    ],
)
def test_addresses_that_are_none(address: str | Path, message: str) -> None:
    with pytest.raises(UsageError, match=message):
        Staging(address, "S", "h1")


def test_missing_packages_are_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "gcsfs", None)
    with pytest.raises(UsageError, match=r"gs://bucket/maps: gs:// needs another package \(.*(?i:install)"):
        output_folder("gs://bucket/maps")
    monkeypatch.setitem(sys.modules, "upath", None)
    with pytest.raises(UsageError, match="pip install universal-pathlib"):
        output_folder("s3://bucket/maps")


def test_a_scene_is_mapped_into_a_store(out: Any, tiny_model: Path, tmp_path: Path) -> None:
    """As on a disk, byte for byte."""
    import geocfl
    from geocfl.demonstration.landscape import write_synthetic_scene

    scene = tmp_path / "s.tif"
    write_synthetic_scene(scene, tmp_path / "truth.tif", size=128)
    there = geocfl.map_scene(scene, out, model=tiny_model)
    here = geocfl.map_scene(scene, tmp_path / "maps", model=tiny_model)
    assert sorted(path.name for path in out.glob("*")) == sorted(path.name for path in here.paths.values())
    for name, path in here.paths.items():
        if name != "summary":
            assert there.paths[name].read_bytes() == path.read_bytes()
    assert json.loads(there.paths["summary"].read_text())["hash"] == here.summary["hash"]
    assert geocfl.map_scene(scene, out, model=tiny_model).already_done


def test_a_catalog_of_a_store(out: Any, tmp_path: Path) -> None:
    pytest.importorskip("stac_geoparquet")
    item = {"type": "Feature", "stac_version": "1.1.0", "id": "S", "stac_extensions": [], "links": [], "assets": {}}
    item |= {"geometry": {"type": "Point", "coordinates": [13, 46]}, "bbox": [13, 46, 13, 46]}
    item["properties"] = {"datetime": "2022-06-01T10:00:00Z"}
    local = tmp_path / out.name
    for folder in (out / "33TUL/2022", local / "33TUL/2022"):
        folder.mkdir(parents=True, exist_ok=True)
        (folder / "S_summary.json").write_text('{"hash": "", "scene": {}, "model": {}, "classes": []}')
        (folder / "S.stac.json").write_text(json.dumps(item))
    assert write_catalog(local, parquet=True).maps == write_catalog(out, parquet=True).maps == ("33TUL/2022/S",)
    for name in ("catalog.json", "collection.json", "catalog.parquet"):
        assert (out / name).read_bytes() == (local / name).read_bytes()
    assert write_catalog(out).maps == ("33TUL/2022/S",)  # which reads the table that it replaces
    with pytest.raises(OutputError, match="cannot be"):
        write_catalog(out / "elsewhere")

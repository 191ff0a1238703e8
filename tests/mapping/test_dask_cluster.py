"""Maps on real Dask: scheduler and workers are processes of their own on loopback."""

import hashlib
import json
import shutil
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import rasterio
from affine import Affine

pytest.importorskip("distributed", reason="needs geocfl[dask]")

import geocfl
from geocfl.errors import GeocflError, OutputError, SceneError, UsageError
from geocfl.mapping import dask_checks, dask_client, dask_worker
from geocfl.mapping import dask_cluster as distributed
from geocfl.mapping.checkpoint import Checkpoint
from geocfl.mapping.mapper import Mapper
from geocfl.mapping.recall import MANIFEST
from geocfl.mapping.settings import MapSettings
from geocfl.products.scene_map import SceneMap
from geocfl.scenes import fingerprint
from geocfl.scenes.collect import Listed, list_scenes

pytestmark = pytest.mark.integration

GEOCFL = str(Path(sys.executable).with_name("geocfl"))
STRIDE = 8
"""Some hundred windows a scene: long enough that a worker can be killed while it is at one."""


def write_scenes(folder: Path, good: int, bad: int) -> None:
    """Noise, a different one in each, and files that are no scenes between them."""
    folder.mkdir()
    for index in range(good):
        dn = np.random.default_rng(index).integers(200, 2000, (3, 150, 200), dtype=np.uint16)
        with rasterio.open(
            folder / f"s{index:02}_20240601T100031.tif", "w", driver="GTiff", height=150, width=200, count=3,
            dtype="uint16", crs="EPSG:32633", transform=Affine(10, 0, 3e5 + 1500 * index, 0, -10, 5e6),
        ) as dataset:  # fmt: skip
            dataset.write(dn)
            dataset.descriptions = ("B04", "B03", "B02")
    for index in range(bad):
        (folder / f"s{index:02}x.tif").write_text("no raster")


def content(folder: Path) -> dict[str, str]:
    """Every file's hash, summaries without their timing, and without the manifest, which depends on the clock."""
    found = {}
    for path in sorted(path for path in folder.rglob("*") if path.is_file() and path.name != MANIFEST):
        data = path.read_bytes()
        if path.name.endswith("_summary.json"):
            data = json.dumps(json.loads(data) | {"timing": None}).encode()
        found[str(path.relative_to(folder))] = hashlib.sha256(data).hexdigest()
    return found


def map_on_dask(mapper: Mapper, listed: list[Listed], *where: Any, **options: Any) -> dict[str, SceneMap | GeocflError]:
    """The last result of each scene."""
    ends = distributed.map_on_dask(mapper, listed, *where, **options)
    return {listed[ended.index].path: ended.attempt.result for ended in ends}


class Processes:
    """A scheduler on a port of its own, and workers that can be killed."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            self.port = free.getsockname()[1]
        self.address = f"tcp://127.0.0.1:{self.port}"
        self.scheduler: subprocess.Popen[bytes] | None = None
        self.workers: list[subprocess.Popen[bytes]] = []

    def _start(self, *arguments: str, cwd: Path | None = None) -> "subprocess.Popen[bytes]":
        return subprocess.Popen(
            [sys.executable, "-m", *arguments], cwd=cwd or self.folder, stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )  # fmt: skip

    def start_scheduler(self) -> None:
        self.scheduler = self._start(
            "distributed.cli.dask_scheduler", "--host", "127.0.0.1", "--port", str(self.port), "--no-dashboard"
        )
        wait_for(self._answers)

    def _answers(self) -> bool:
        try:
            socket.create_connection(("127.0.0.1", self.port), 1).close()
        except OSError:
            return False
        return True

    def start_worker(self, *options: str) -> None:
        # In another folder, so that no path is relative to where the command runs.
        elsewhere = self.folder / f"worker{len(self.workers)}"
        elsewhere.mkdir(exist_ok=True)
        self.workers.append(
            self._start(
                "distributed.cli.dask_worker",
                self.address,
                "--nthreads",
                "2",
                "--no-nanny",
                "--no-dashboard",
                "--death-timeout",
                "60",
                "--local-directory",
                str(elsewhere),
                *options,
                cwd=elsewhere,
            )
        )

    def stop(self) -> None:
        for process in [*self.workers, self.scheduler]:
            if process:
                process.kill()
                process.wait()
        self.workers.clear()


@pytest.fixture
def processes(tmp_path: Path) -> Iterator[Processes]:
    started = Processes(tmp_path)
    yield started
    started.stop()


def wait_for(condition: Callable[[], bool], seconds: float = 120) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, "waited in vain"
        time.sleep(0.05)


def scenario(tmp_path: Path, model: Path, processes: Processes, good: int, bad: int) -> None:
    """A run in which a worker is killed at a scene, and then the scheduler with all workers."""
    write_scenes(tmp_path / "in", good, bad)
    command = [GEOCFL, "map", "in/*.tif", "--model", str(model), "--stride", str(STRIDE), "--products", "default,stac"]
    here = subprocess.run([*command, "--out", "here/maps"], cwd=tmp_path, capture_output=True, text=True, check=False)
    assert here.returncode == (3 if bad else 0), here.stderr
    processes.start_scheduler()
    processes.start_worker()
    processes.start_worker()
    far = subprocess.Popen(
        [*command, "--out", "far/maps", "--scheduler", processes.address],
        cwd=tmp_path, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
    )  # fmt: skip
    out = tmp_path / "far/maps"

    def finished() -> int:
        return len(list(out.glob("*_summary.json")))

    def at_work() -> bool:
        try:
            return any(path.stat().st_size for path in out.glob(".*.partial/checkpoint.jsonl"))
        except FileNotFoundError:  # it was finished meanwhile
            return False

    wait_for(lambda: finished() >= 1 and at_work())
    processes.workers[0].send_signal(signal.SIGKILL)
    processes.start_worker()
    before = finished()
    wait_for(lambda: finished() >= before + 1)
    processes.stop()
    assert far.poll() is None, "the run was over before the scheduler died"
    written = {path: path.stat().st_mtime_ns for path in out.glob("*_summary.json")}
    processes.start_scheduler()
    processes.start_worker()
    stdout, stderr = far.communicate(timeout=300)
    assert far.returncode == (3 if bad else 0), stderr
    assert "Traceback" not in stderr
    assert stdout.count("not a readable raster") == bad
    assert {path: path.stat().st_mtime_ns for path in written} == written  # what was whole was not done again
    assert content(out) == content(tmp_path / "here/maps")
    assert {path.name for path in out.glob(".*")} <= {MANIFEST}
    assert not list(tmp_path.glob("worker3/**/model.safetensors"))  # the worker lives, the model is gone


def test_a_run_survives_the_death_of_workers_and_scheduler(
    tmp_path: Path, tiny_model: Path, processes: Processes
) -> None:
    scenario(tmp_path, tiny_model, processes, good=7, bad=1)


def test_a_worker_that_is_terminated_saves_its_checkpoint(
    tmp_path: Path, tiny_model: Path, processes: Processes
) -> None:
    (tmp_path / "in").mkdir()
    dn = np.random.default_rng(0).integers(200, 2000, (3, 4096, 200), dtype=np.uint16)
    with rasterio.open(
        tmp_path / "in/s.tif", "w", driver="GTiff", height=4096, width=200, count=3, dtype="uint16",
        crs="EPSG:32633", transform=Affine(10, 0, 3e5, 0, -10, 5e6),
    ) as dataset:  # fmt: skip
        dataset.write(dn)
        dataset.descriptions = ("B04", "B03", "B02")
    command = [GEOCFL, "map", "in/s.tif", "--model", str(tiny_model), "--stride", "16"]
    processes.start_scheduler()
    processes.start_worker("--nanny")
    far = subprocess.Popen(
        [*command, "--out", "far", "--work", "work", "--scheduler", processes.address],
        cwd=tmp_path, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
    )  # fmt: skip
    log = tmp_path / "far/.s.partial/checkpoint.jsonl"
    wait_for(lambda: log.exists() and log.read_text().count("\n") > 1)
    processes.workers[0].terminate()
    wait_for(lambda: bool(list(tmp_path.glob("work/*/checkpoint.jsonl"))), 20)
    shutil.rmtree(tmp_path / "far/.s.partial")  # the disk of the machine is gone
    processes.start_worker()
    _, stderr = far.communicate(timeout=120)
    assert far.returncode == 0, stderr
    timing = json.loads((tmp_path / "far/s_summary.json").read_text())["timing"]
    assert timing["windows"] < 256 * 13
    subprocess.run([*command, "--out", "here"], cwd=tmp_path, capture_output=True, check=True)
    assert content(tmp_path / "far") == content(tmp_path / "here")


SLOW = """
import time
from geocfl.mapping.mapper import Mapper
if Mapper.map.__name__ == "map":  # Dask loads the file twice
    def slow(*arguments, whole=Mapper.map, **options):
        time.sleep(1)
        return whole(*arguments, **options)
    Mapper.map = slow
"""
OTHER = """
import geocfl._version
geocfl._version.__version__ = "9.9"
"""
OLDER = """
import threading
import geocfl._version
geocfl._version.__version__ = "0.0"
from geocfl.mapping import dask_worker
async def setup(self, worker):
    self.closing = threading.Event()
dask_worker.Plugin.setup = setup
"""


@pytest.mark.slow
def test_late_workers_of_another_version_map_nothing(
    tmp_path: Path, tiny_model: Path, processes: Processes, caplog: pytest.LogCaptureFixture
) -> None:
    write_scenes(tmp_path / "in", 30, 0)
    for name, code in (("slow", SLOW), ("other", OTHER), ("older", OLDER)):
        (tmp_path / f"{name}.py").write_text(code)
    processes.start_scheduler()
    processes.start_worker("--preload", str(tmp_path / "slow.py"))
    events = tmp_path / "events.jsonl"
    results = geocfl.map_scenes(
        [tmp_path / "in/*.tif"], tmp_path / "maps", model=tiny_model, products=("lulc", "summary"),
        scheduler=processes.address, events=events,
    )  # fmt: skip
    found = [next(results)]
    processes.start_worker("--preload", str(tmp_path / "other.py"))
    processes.start_worker("--preload", str(tmp_path / "older.py"))
    found += results
    good, other, older = processes.workers
    assert len(found) == 30
    assert all(isinstance(result, SceneMap) for _, result in found)
    wait_for(lambda: other.poll() is not None and older.poll() is not None)
    lines = [json.loads(line) for line in events.read_text().splitlines()]
    assert {line["pid"] for line in lines if line["kind"] in ("start", "scene")} == {good.pid}
    assert "has geocfl 0.0, but this is" in caplog.text


@pytest.mark.slow
def test_sixty_scenes_of_which_three_are_broken(tmp_path: Path, tiny_model: Path, processes: Processes) -> None:
    scenario(tmp_path, tiny_model, processes, good=57, bad=3)


def test_workers_here_divide_a_large_scene(tmp_path: Path, tiny_model: Path, monkeypatch) -> None:
    monkeypatch.chdir(tmp_path)
    write_scenes(tmp_path / "in", 2, 0)
    settings = MapSettings(stride=STRIDE)
    mapper = Mapper(geocfl.load_model(tiny_model), settings, memory="3GB")
    listed = list_scenes(["in/*.tif"])
    cut = tmp_path / "in/s01_20240601T100031.tif"
    whole = cut.read_bytes()
    cut.write_bytes(whole[:60_000])
    # An address of a folder is that folder.
    far = map_on_dask(mapper, listed, f"file://{tmp_path}/far", workers=2, block_windows=100)
    assert [path for path, result in far.items() if isinstance(result, GeocflError)] == [listed[1].path]
    assert not list((tmp_path / "far").glob(".*"))
    cut.write_bytes(whole)
    far = map_on_dask(mapper, listed, "far", workers=2, block_windows=100)
    assert [result.already_done for result in far.values()].count(True) == 1
    for scene in listed:
        mapper.map(scene.source, "here")
    assert content(tmp_path / "far") == content(tmp_path / "here")
    assert all(mapper.map(scene.source, "far").already_done for scene in listed)


def test_finished_scenes_get_no_task(tmp_path: Path, tiny_model: Path, monkeypatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(dask_client, "LocalCluster", partial(dask_client.LocalCluster, processes=False))
    monkeypatch.setattr(fingerprint, "SETTLED", -1_000_000_000_000)
    write_scenes(Path("in"), 3, 1)
    options = {"model": tiny_model, "workers": 1, "products": ("lulc",), "retries": 0, "device": "cpu"}
    assert sum(isinstance(each, SceneMap) for _, each in geocfl.map_scenes("in/*.tif", "maps", **options)) == 3
    next(Path("maps").glob("s01_*_lulc.tif")).unlink()
    tasks: list[str] = []
    submitted = distributed._Run._submit

    def submit(run: Any, path: str, *arguments: Any, **how: Any) -> Any:
        tasks.append(path)
        return submitted(run, path, *arguments, **how)

    monkeypatch.setattr(distributed._Run, "_submit", submit)
    again = dict(geocfl.map_scenes("in/*.tif", "maps", events="run.jsonl", **options))
    assert sorted(tasks) == ["in/s00x.tif", "in/s01_20240601T100031.tif"]
    done = [each for each in again.values() if isinstance(each, SceneMap)]
    assert sorted(each.already_done for each in done) == [False, True, True]
    tasks.clear()
    geocfl_run = geocfl.map_scenes("in/s*_*.tif", "maps", events="run.jsonl", **options)
    assert all(isinstance(each, SceneMap) and each.already_done for _, each in geocfl_run)
    assert tasks == []
    assert geocfl.status("run.jsonl").failed == 1


def test_two_scenes_share_a_gpu(tmp_path: Path, tiny_model: Path, monkeypatch) -> None:
    monkeypatch.setattr(dask_client, "LocalCluster", partial(dask_client.LocalCluster, processes=False))
    monkeypatch.setattr(distributed, "count_gpus", lambda: 2)
    write_scenes(tmp_path / "in", 4, 0)
    both, devices = threading.Barrier(4, timeout=60), set[str]()

    def together(mapper: Mapper, *_: Any, **__: Any) -> SceneMap:
        devices.add(mapper.device)
        both.wait()  # breaks unless two scenes of each of two workers are under way
        return SceneMap({}, {})

    monkeypatch.setattr(Mapper, "map", together)
    monkeypatch.setattr(dask_worker, "divide", lambda *_, **__: None)
    listed = list_scenes([tmp_path / "in/*.tif"])
    mapper = Mapper(geocfl.load_model(tiny_model), MapSettings(), device="cuda", memory="3GB")
    results = map_on_dask(mapper, listed, tmp_path / "maps", workers=2)
    assert all(isinstance(result, SceneMap) for result in results.values()), results
    assert devices == {"cuda:0", "cuda:1"}


def test_workers_that_join_later_share_the_cores_of_their_host(tiny_model: Path, monkeypatch) -> None:
    monkeypatch.setattr(dask_client, "LocalCluster", partial(dask_client.LocalCluster, processes=False))
    monkeypatch.setattr(dask_worker, "cores", lambda: 8)
    mapper = Mapper(geocfl.load_model(tiny_model), MapSettings(), memory="3GB")
    with dask_client.connected(None, 1, mapper) as client:
        cluster = client.cluster
        client.register_plugin(plugin := dask_worker.Plugin(mapper))
        cluster.scale(2)
        client.wait_for_workers(2, timeout=60)
        threads = client.run(lambda dask_worker: dask_worker.plugins[plugin.name].mapper.classifier._threads)
    assert sorted(threads.values()) == [4, 8]


def test_the_gpu_of_a_worker() -> None:
    assert [dask_worker.own_device("cuda", worker, 2) for worker in range(3)] == ["cuda:0", "cuda:1", "cuda:0"]
    assert dask_worker.own_device("cuda:1", 0, 2) == "cuda:1"
    assert dask_worker.own_device("cpu", 1, 2) == "cpu"
    assert dask_worker.own_device("cuda", "tcp://10.0.0.1:40000", 2) == "cuda"
    assert dask_worker.own_device("cuda", 1, 1) == "cuda"


def test_servers_that_fail_cost_no_finished_strip(tmp_path: Path, tiny_model: Path, monkeypatch) -> None:
    monkeypatch.setenv("GDAL_HTTP_RETRY_DELAY", "0")
    monkeypatch.setattr("geocfl.mapping.memory.STRIP_ROWS", 16)  # so that a block has several strips
    monkeypatch.setattr(dask_client, "LocalCluster", partial(dask_client.LocalCluster, processes=False))
    write_scenes(tmp_path / "in", 1, 0)
    (scene,) = list_scenes([*(tmp_path / "in").iterdir()])
    mapper = Mapper(geocfl.load_model(tiny_model), MapSettings(stride=STRIDE), memory="3GB")
    whole, finished, failures = Checkpoint.append, list[int](), list[int]()

    def append(checkpoint: Checkpoint, *strip: Any) -> None:
        if len(finished) == 3 and len(failures) < 5:  # more than there are blocks: the second try fails too
            failures.append(checkpoint.row)
            raise SceneError("the server failed 5 times (HTTP 503)", transient=True)
        finished.append(checkpoint.row)
        whole(checkpoint, *strip)

    with monkeypatch.context() as patch:
        patch.setattr(Checkpoint, "append", append)
        (mapped,) = map_on_dask(mapper, [scene], tmp_path / "far", workers=1, block_windows=100).values()
    assert isinstance(mapped, SceneMap)
    assert len(finished) == len(set(finished)) > 5  # each strip once, of more strips than blocks
    assert len(failures) == 5
    mapper.map(scene.source, tmp_path / "here")
    assert content(tmp_path / "far") == content(tmp_path / "here")


def test_what_a_cluster_cannot_do_is_said_before_work_starts(
    tmp_path: Path, tiny_model: Path, processes: Processes, monkeypatch
) -> None:
    write_scenes(tmp_path / "in", 1, 0)
    scene = tmp_path / "in/s00_20240601T100031.tif"

    def attempt(**options) -> None:
        list(geocfl.map_scenes([scene], tmp_path / "out/maps", model=tiny_model, **options))

    monkeypatch.setattr(dask_client, "PATIENCE", 2.0)
    with pytest.raises(UsageError, match=r"`scheduler` tcp://127.0.0.1:\d+: no Dask scheduler answers there"):
        attempt(scheduler=processes.address)
    with pytest.raises(UsageError, match="no Dask scheduler answers there"):
        attempt(scheduler="nonsense://")
    processes.start_scheduler()
    monkeypatch.setattr(dask_client, "PATIENCE", 10.0)
    with pytest.raises(UsageError, match="has no workers; start some with dask worker"):
        attempt(scheduler=processes.address)
    processes.start_worker()
    monkeypatch.setattr(dask_client, "PATIENCE", 60.0)
    with pytest.raises(UsageError, match="no worker has a GPU resource"):
        attempt(scheduler=processes.address, device="cuda")
    with monkeypatch.context() as patch:
        patch.setattr(dask_checks, "__version__", "9.9")
        with pytest.raises(UsageError, match=rf"has geocfl {geocfl.__version__}, but this is 9\.9"):
            attempt(scheduler=processes.address)
    with monkeypatch.context() as patch:  # a folder that only this process sees
        patch.setattr(dask_checks, "absolute_path", lambda path: path)
        patch.setattr(distributed, "absolute", lambda source: source)
        patch.chdir(tmp_path)
        with pytest.raises(UsageError, match=r"worker tcp://\S+ does not see in/s00\S+; mount the same folders"):
            list(
                geocfl.map_scenes(
                    ["in/s00_20240601T100031.tif"], "out/maps", model=tiny_model, scheduler=processes.address
                )
            )
    assert not (tmp_path / "out").exists()
    (tmp_path / "out").touch()
    with pytest.raises(OutputError, match="cannot be written to"):
        attempt(scheduler=processes.address)
    with pytest.raises(UsageError, match="`workers` and `scheduler` exclude each other"):
        attempt(scheduler=processes.address, workers=2)


@pytest.mark.slow
def test_a_scheduler_that_does_not_come_back(
    tmp_path: Path, tiny_model: Path, processes: Processes, monkeypatch
) -> None:
    write_scenes(tmp_path / "in", 4, 0)
    processes.start_scheduler()
    processes.start_worker()
    results = geocfl.map_scenes(
        [tmp_path / "in/*.tif"], tmp_path / "maps", model=tiny_model, stride=STRIDE, scheduler=processes.address
    )
    assert isinstance(next(results)[1], SceneMap)
    monkeypatch.setattr(dask_client, "PATIENCE", 2.0)
    processes.stop()
    rest = []
    with pytest.raises(GeocflError, match=r"lost with \d scenes to go \(.*\); run the same command again") as caught:
        rest.extend(results)
    assert caught.type is GeocflError  # no UsageError: the command was right
    assert len(rest) < 3
    again = dict(geocfl.map_scenes([tmp_path / "in/*.tif"], tmp_path / "maps", model=tiny_model, stride=STRIDE))
    assert sum(result.already_done for result in again.values()) >= 1
    assert {path.name for path in (tmp_path / "maps").glob(".*")} <= {MANIFEST}

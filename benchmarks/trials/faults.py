"""Lacking resources: full disks, limits of files and descriptors, refused paths, closed streams.

Each fault is done to a process, or to its files, before the command starts there. The command has to give the
undisturbed result or one sentence, and to leave nothing behind; the same command without the fault has to give the
undisturbed result. Root is refused nothing, so as root the commands run without the capability to bypass permissions.
Disks are small file systems in memory, which only root can mount.
"""

from __future__ import annotations

import ctypes
import os
import resource
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from trials.inputs import Case
from trials.processes import Outcome, geocfl, preload_model
from trials.work import Job, difference, jobs, written

ROOT = os.name == "posix" and os.geteuid() == 0
Do = Callable[[Path], None]


@dataclass(frozen=True)
class Fault:
    """What is lacking.

    Attributes:
        row: Its row in the table.
        jobs: Names of the commands that it disturbs.
        said: What is done.
        do: Does it, in the process of the command; takes the folder with ``in``, ``out`` and ``tmp``.
        disk: Kilobytes of the file system that holds the output folder; 0 for the usual one.
    """

    row: str
    jobs: tuple[str, ...]
    said: str
    do: Do = lambda work: None
    disk: int = 0


def refused(name: str, mode: int = 0) -> Do:
    """The permissions of a file or folder."""
    return lambda work: (work / name).chmod(mode)


def limited(which: int, size: int) -> Do:
    """A limit of `resource`."""
    return lambda work: resource.setrlimit(which, (size, size))


def closed(*streams: int) -> Do:
    """Standard streams are closed."""

    def do(work: Path) -> None:
        for stream in streams:
            os.close(stream)

    return do


def full(stream: int) -> Do:
    """A standard stream that takes nothing."""

    def do(work: Path) -> None:
        os.dup2(os.open("/dev/full", os.O_RDWR), stream)

    return do


def deaf(work: Path) -> None:
    """Nobody reads standard output."""
    end, start = os.pipe()
    os.close(end)
    os.dup2(start, 1)
    sys.stdout = open(1, "w", closefd=False)  # noqa: SIM115 - the old one knows a place in a file


def environment(**values: str) -> Do:
    """Environment variables; an empty one is unset, and WORK stands for the folder."""

    def do(work: Path) -> None:
        (work / "no").mkdir()
        (work / "no").chmod(0o555)
        (work / "file").touch()
        for name, value in values.items():
            os.environ.pop(name, None)
            if value:
                os.environ[name] = value.replace("WORK", str(work))

    return do


def a_file(work: Path) -> None:
    """The output folder is a file."""
    (work / "out").rmdir()
    (work / "out").touch()


def gone(work: Path) -> None:
    """The working folder is deleted."""
    (work / "gone").mkdir()
    os.chdir(work / "gone")
    (work / "gone").rmdir()


_ALL = ("map", "train", "mosaic", "table")
FILES, OPEN = resource.RLIMIT_FSIZE, resource.RLIMIT_NOFILE
FAULTS = (
    *(Fault("Full disk", ("map",), "", disk=size) for size in (8, 40, 80, 160, 240, 400)),
    *(Fault("Full disk", ("mosaic", "regions"), "", disk=size) for size in (8, 24, 64)),
    *(Fault("Full disk", ("areas", "table"), "", disk=size) for size in (4, 40)),
    *(Fault("Full disk", ("train",), "", disk=size) for size in (4, 2000, 20_000, 40_000)),
    *(Fault("Limit of file sizes", ("map", "mosaic"), f"{kb} kB", limited(FILES, kb * 1000)) for kb in (4, 16, 40)),
    *(Fault("Limit of file sizes", ("train", "areas"), f"{kb} kB", limited(FILES, kb * 1000)) for kb in (4, 16, 100)),
    *(Fault("Limit of open files", _ALL, f"{count}", limited(OPEN, count)) for count in (8, 12, 24)),
    Fault("No permission", _ALL, "output folder", refused("out", 0o555)),
    Fault("No permission", ("map",), "scene", refused("in/A.tif")),
    Fault("No permission", ("map",), "weights", refused("in/tiny/model.safetensors")),
    Fault("No permission", ("map",), "model", refused("in/tiny")),
    Fault("No permission", ("train",), "a class of patches", refused("in/patches/Forest")),
    Fault("No permission", ("mosaic", "regions"), "a map", refused("in/maps/B_lulc.tif")),
    Fault("No permission", ("areas", "regions"), "zones", refused("in/zones.gpkg")),
    Fault("Output is a file", _ALL, "", a_file),
    Fault("Unwritable cache", _ALL, "read-only", environment(GEOCFL_CACHE="WORK/no", HOME="WORK/no")),
    Fault("Unwritable cache", ("map", "train"), "a file", environment(GEOCFL_CACHE="WORK/file", HOME="WORK/file")),
    Fault("Unwritable cache", ("map", "mosaic"), "no home", environment(GEOCFL_CACHE="", HOME="", XDG_CACHE_HOME="")),
    Fault("No temporary folder", ("map", "areas"), "", environment(TMPDIR="WORK/no")),
    Fault("Closed streams", _ALL, "standard output", closed(1)),
    Fault("Closed streams", _ALL, "standard error", closed(2)),
    Fault("Closed streams", ("map", "mosaic"), "all", closed(0, 1, 2)),
    Fault("Full streams", ("map", "mosaic", "areas"), "standard output", full(1)),
    Fault("Full streams", ("map",), "standard error", full(2)),
    Fault("Full streams", ("map", "table"), "nobody reads", deaf),
    Fault("Working folder deleted", ("map", "mosaic"), "", gone),
)


def disturb_all(folder: Path, every: int = 1) -> Iterator[Case]:
    """Runs each command under each of its faults, or under every n-th.

    Args:
        folder: An empty folder to work in.
        every: 1 for all faults.
    """
    commands = jobs(folder)
    preload_model(folder / "tiny")
    right: dict[str, dict[str, bytes]] = {}
    cases = [(fault, name) for fault in FAULTS for name in fault.jobs][::every]
    for number, (fault, name) in enumerate(cases):
        if fault.disk and not ROOT:
            continue
        if name not in right:
            with _place(folder, 0) as work:
                outcome = _run(commands[name], work)
                assert (outcome.code, outcome.defect) == (0, ""), outcome
                right[name] = written(work / "out")
        with _place(folder, fault.disk) as work:
            first = _run(commands[name], work, fault.do)
            left = written(work / "out") if (work / "out").is_dir() else {}
            verdict, detail = _judge(first, left, right[name])
            if verdict in {"right", "error"}:
                again = _again(commands[name], work, fault)
                differs = difference(written(work / "out"), right[name])
                if again.defect or differs or (again.code and commands[name].finished not in again.err):
                    verdict, detail = "not mended", f"{again.err[-1000:]}; {differs}; before: {first.err[-500:]}"
            what = f"{fault.disk} kB" if fault.disk else fault.said
            yield Case(fault.row, number, f"{name}: {what}", verdict, detail)


def _judge(first: Outcome, left: dict[str, bytes], right: dict[str, bytes]) -> tuple[str, str]:
    unheard = first.defect == "no message" and (not first.err or not difference(left, right))  # or nobody reads
    if first.defect and not unheard:
        return first.defect, first.err[-3000:]
    if not difference(left, right):
        return "right", first.reason
    if first.code == 0:
        return "wrong in silence", difference(left, right)
    if any(not _resumable(file, left[file], right) for file in left):
        return "left over", f"{difference(left, right)}; {first.reason}"
    return "error", first.reason


def _resumable(file: str, content: bytes, right: dict[str, bytes]) -> bool:
    """Whether a file is one that documented commands keep for their next run: checkpoints, and finished regions."""
    finished = file.startswith("regions/") and (right.get(file) == content or ".partial/" in file)
    return finished or file in {"run/config.json", "run/checkpoint.pt"}


def _again(job: Job, work: Path, fault: Fault) -> Outcome:
    """The command without the fault, after the cause is gone."""
    if fault.disk:
        subprocess.run(["mount", "-o", "remount,size=500M", str(work / "out")], check=True)
    if not (work / "out").is_dir():
        (work / "out").unlink(missing_ok=True)
        (work / "out").mkdir()
    subprocess.run(["chmod", "-R", "u+rwX", str(work)], check=True)
    return _run(job, work)


def _run(job: Job, work: Path, do: Do = lambda work: None) -> Outcome:
    copied = [part.replace(str(work.parent), str(work / "in")) for part in job.arguments]
    arguments = [part.replace("OUT", str(work / "out")) for part in copied]

    def before() -> None:
        do(work)
        if ROOT:
            _drop_privileges()

    places = dict.fromkeys(("TMPDIR", "GEOCFL_CACHE", "HOME"), str(work / "tmp"))
    return geocfl(arguments, environment=places, before=before)


def _drop_privileges() -> None:
    """Root without CAP_DAC_OVERRIDE and CAP_DAC_READ_SEARCH, as permissions hold for other users."""
    header = (ctypes.c_uint32 * 2)(0x20080522, 0)
    sets = (ctypes.c_uint32 * 6)()
    libc = ctypes.CDLL(None, use_errno=True)
    libc.capget(header, sets)
    for index in range(3):
        sets[index] &= ~0b110
    assert libc.capset(header, sets) == 0


@contextmanager
def _place(folder: Path, disk: int) -> Iterator[Path]:
    """A folder with copies of the inputs, and the output folder."""
    work = folder / "work"  # always the same, since some products name files
    for name in ("out", "tmp", "in"):
        (work / name).mkdir(parents=True)
    for name in ("tiny", "maps", "patches"):
        shutil.copytree(folder / name, work / "in" / name)
    for name in ("A.tif", "zones.gpkg"):
        shutil.copy(folder / name, work / "in" / name)
    if disk:
        subprocess.run(["mount", "-t", "tmpfs", "-o", f"size={disk}k", "tmpfs", str(work / "out")], check=True)
    try:
        yield work
    finally:
        if disk:
            subprocess.run(["umount", "-l", str(work / "out")], check=True)
        subprocess.run(["chmod", "-R", "u+rwX", str(work)], check=False)
        shutil.rmtree(work, ignore_errors=True)

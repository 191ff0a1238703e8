"""Lacking resources: full disks, limits of files, memory and descriptors, refused paths, closed streams.

Each fault is a line of shell around a command, in a process of its own. The command has to give the undisturbed result
or one sentence, and to leave nothing behind; the same command without the fault has to give the undisturbed result.
Root is refused nothing, so as root the commands run as the user 65534, and disks are small file systems in memory.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from trials.inputs import Case
from trials.processes import Outcome
from trials.work import Job, difference, jobs, written

PROGRAM = str(Path(sys.executable).with_name("geocfl"))
ROOT = os.name == "posix" and os.geteuid() == 0


@dataclass(frozen=True)
class Fault:
    """What is lacking.

    Attributes:
        row: Its row in the table.
        jobs: Names of the commands that it disturbs.
        shell: Lines of shell; ``CMD`` stands for the command, ``OUT`` for its output folder, ``IN`` for its inputs.
        disk: Kilobytes of the file system that holds the output folder; 0 for the usual one.
        nobody: Whether it needs a user who is not root.
    """

    row: str
    jobs: tuple[str, ...]
    shell: str
    disk: int = 0
    nobody: bool = False


_ALL = ("map", "train", "mosaic", "table")
_MAPS = ("map", "mosaic", "areas")
FAULTS = (
    *(Fault("Full disk", ("map",), "CMD", disk=size) for size in (8, 40, 80, 160, 240, 400)),
    *(Fault("Full disk", ("mosaic", "regions"), "CMD", disk=size) for size in (8, 24, 64)),
    *(Fault("Full disk", ("areas", "table"), "CMD", disk=size) for size in (4, 40)),
    *(Fault("Full disk", ("train",), "CMD", disk=size) for size in (4, 2000, 20_000, 40_000)),
    *(Fault("Limit of file sizes", ("map", "mosaic"), f"ulimit -f {size}; CMD") for size in (0, 4, 40)),
    *(Fault("Limit of file sizes", ("train", "areas"), f"ulimit -f {size}; CMD") for size in (0, 8, 100)),
    *(Fault("Limit of memory", ("map",), f"ulimit -v {size}000000; CMD") for size in (1, 2, 3, 4)),
    Fault("Limit of memory", ("mosaic", "train"), "ulimit -v 1500000; CMD"),
    *(Fault("Limit of open files", _ALL, f"ulimit -n {size}; CMD") for size in (12, 24)),
    Fault("No permission", _ALL, "chmod 555 OUT; CMD", nobody=True),
    Fault("No permission", ("map",), "chmod 0 IN/A.tif; CMD", nobody=True),
    Fault("No permission", ("map",), "chmod 0 IN/tiny/model.safetensors; CMD", nobody=True),
    Fault("No permission", ("map",), "chmod 0 IN/tiny; CMD", nobody=True),
    Fault("No permission", ("train",), "chmod 0 IN/patches/Forest; CMD", nobody=True),
    Fault("No permission", ("mosaic", "regions"), "chmod 0 IN/maps/B_lulc.tif; CMD", nobody=True),
    Fault("No permission", ("table", "regions"), "chmod 0 IN/zones.gpkg; CMD", nobody=True),
    Fault("Output is a file", _ALL, "rmdir OUT; touch OUT; CMD"),
    Fault("Unwritable caches", _ALL, "mkdir no; chmod 555 no; HOME=$PWD/no GEOCFL_CACHE=$PWD/no CMD", nobody=True),
    Fault("Unwritable caches", ("map", "train"), "touch no; HOME=$PWD/no GEOCFL_CACHE=$PWD/no XDG_CACHE_HOME= CMD"),
    Fault("Unwritable caches", ("map", "mosaic"), "unset HOME GEOCFL_CACHE XDG_CACHE_HOME; CMD"),
    Fault("No temporary folder", ("map", "areas"), "mkdir no; chmod 555 no; TMPDIR=$PWD/no CMD", nobody=True),
    Fault("Closed streams", _ALL, "CMD >&-"),
    Fault("Closed streams", _ALL, "CMD 2>&-"),
    Fault("Closed streams", ("map", "mosaic"), "CMD <&- >&- 2>&-"),
    Fault("Full streams", _MAPS, "CMD > /dev/full"),
    Fault("Full streams", ("map",), "CMD 2> /dev/full"),
    Fault("Full streams", ("map", "table"), "CMD | true"),
    Fault("Plain locale", ("map", "table"), "LC_ALL=C PYTHONUTF8=0 PYTHONIOENCODING=ascii CMD"),
    Fault("Working folder deleted", ("map", "mosaic"), "mkdir gone; cd gone; rmdir ../gone; CMD"),
)  # fmt: skip


def disturb_all(folder: Path, every: int = 1) -> Iterator[Case]:
    """Runs each command under each of its faults, or under every n-th.

    Args:
        folder: An empty folder to work in.
        every: 1 for all faults.
    """
    folder.chmod(0o755)
    commands = jobs(folder)
    right: dict[str, dict[str, bytes]] = {}
    cases = [(fault, name) for fault in FAULTS for name in fault.jobs][::every]
    for number, (fault, name) in enumerate(cases):
        if fault.disk and not ROOT:
            continue
        if name not in right:
            with _place(folder, Fault("none", (name,), "CMD")) as work:
                outcome = _run(commands[name], work, "CMD")
                right[name] = written(work / "out")
                assert right[name], outcome
        with _place(folder, fault) as work:
            first = _run(commands[name], work, fault.shell)
            left = written(work / "out") if (work / "out").is_dir() else {}
            said = f"{name}: {fault.shell}" + (f", {fault.disk} kB" if fault.disk else "")
            verdict, detail = _judge(first, left, right[name], fault, name)
            if verdict in {"right", "error"}:
                again = _again(commands[name], work, fault)
                differs = difference(written(work / "out"), right[name])
                if again.defect or differs or (again.code and commands[name].finished not in again.err):
                    verdict, detail = "not mended", f"{again.err[-1000:]}; {differs}"
            yield Case(fault.row, number, said, verdict, detail)


def _judge(first: Outcome, left: dict[str, bytes], right: dict[str, bytes], fault: Fault, name: str) -> tuple[str, str]:
    silent = "2>&-" in fault.shell or "2> /dev/full" in fault.shell
    if first.defect and not (first.defect == "no message" and silent):
        return first.defect, first.err[-3000:]
    if not difference(left, right):
        return "right", first.reason
    if first.code == 0 and "| true" not in fault.shell:
        return "wrong in silence", difference(left, right)
    resumable = {"run/config.json", "run/checkpoint.pt"} if name == "train" else set()
    if left.keys() - resumable:
        return "left over", f"{difference(left, right)}; {first.reason}"
    return "error", first.reason


def _again(job: Job, work: Path, fault: Fault) -> Outcome:
    """The command without the fault, after the cause is gone."""
    if fault.disk:
        subprocess.run(["mount", "-o", "remount,size=500M", str(work / "out")], check=True)
    if not (work / "out").is_dir():
        (work / "out").unlink(missing_ok=True)
        (work / "out").mkdir()
    subprocess.run(["chmod", "-R", "u+rwX,a+rwX", str(work)], check=True)
    return _run(job, work, "CMD")


def _run(job: Job, work: Path, shell: str) -> Outcome:
    arguments = [part.replace(str(work.parent), str(work / "in")) for part in job.into(Path("OUT"))]
    arguments = [part.replace("OUT", str(work / "out")) for part in arguments]
    quoted = " ".join(f"'{part}'" for part in (PROGRAM, *arguments))
    line = shell.replace("CMD", quoted).replace("OUT", str(work / "out")).replace("IN", str(work / "in"))
    environment = os.environ | {
        "TMPDIR": str(work / "tmp"),
        "GEOCFL_CACHE": str(work / "tmp"),
        "HOME": str(work / "tmp"),
    }
    user = ["setpriv", "--reuid=65534", "--regid=65534", "--clear-groups"] if ROOT else []
    try:
        done = subprocess.run(
            [*user, "bash", "-c", line], cwd=work, env=environment, capture_output=True, timeout=180, check=False
        )
    except subprocess.TimeoutExpired:
        return Outcome(-9, "", "", timed_out=True)
    code = done.returncode if done.returncode < 128 else 128 - done.returncode
    return Outcome(code, done.stdout.decode(errors="replace"), done.stderr.decode(errors="replace"))


@contextmanager
def _place(folder: Path, fault: Fault) -> Iterator[Path]:
    """A folder with copies of the inputs, which everyone may write, and the output folder."""
    work = Path(tempfile.mkdtemp(dir=folder, prefix="fault"))
    for name in ("out", "tmp", "in"):
        (work / name).mkdir()
    for name in ("tiny", "maps", "patches"):
        shutil.copytree(folder / name, work / "in" / name)
    for name in ("A.tif", "zones.gpkg"):
        shutil.copy(folder / name, work / "in" / name)
    if fault.disk:
        subprocess.run(["mount", "-t", "tmpfs", "-o", f"size={fault.disk}k", "tmpfs", str(work / "out")], check=True)
    if ROOT:
        subprocess.run(["chown", "-R", "65534:65534", str(work)], check=True)
    try:
        yield work
    finally:
        if fault.disk:
            subprocess.run(["umount", "-l", str(work / "out")], check=True)
        subprocess.run(["chmod", "-R", "u+rwX", str(work)], check=False)
        shutil.rmtree(work, ignore_errors=True)

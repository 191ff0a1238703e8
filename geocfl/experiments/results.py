"""Finished runs of comparisons: one line of JSON each, in a file that several processes may extend."""

from __future__ import annotations

import hashlib
import json
import os
from base64 import b64decode, b64encode
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from filelock import FileLock
from numpy.typing import NDArray

from geocfl.core.files import parsed_json
from geocfl.data.patches import Patches
from geocfl.errors import DataError, OutputError
from geocfl.models.weights import weights_file
from geocfl.training.config import TrainSettings

FORMAT_VERSION = 2
# They do not change the result: where the patches are, and how fast a step is.
IRRELEVANT = ("data", "compile", "refit", "skip_bad")


@dataclass(frozen=True)
class FinishedRun:
    """One finished training of a comparison.

    Attributes:
        settings: Settings of the training, see `relevant_settings`.
        metrics: Metrics of the test patches; minority recall is None if no class is a minority.
        correct: (n,) whether each test patch was classified correctly.
        patches: The training and test patches; runs with the same ``test_sha256`` can be compared patch by patch.
    """

    settings: dict[str, Any]
    metrics: dict[str, float | None]
    correct: NDArray[np.bool_]
    patches: dict[str, Any]


class Results:
    """The file of finished runs.

    Args:
        path: The file; it is made when the first run is added.

    Raises:
        DataError: It is not such a file.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self.runs: dict[str, FinishedRun] = {}
        if path.is_dir():
            raise DataError(f"{path}: is a folder; pass a file of finished runs, such as runs.jsonl, as `results`")
        if path.exists():
            self.read()

    def read(self) -> None:
        """Reads the runs, also those that other processes have added."""
        try:
            content = self.path.read_bytes()
        except OSError as error:
            raise DataError(f"{self.path}: cannot be read ({error.strerror})") from error
        # A line without an end belongs to a process that is writing it, or was killed while it did.
        for number, line in enumerate(content.split(b"\n")[:-1], start=1):
            try:
                entry = parsed_json(line)
                if entry["format_version"] != FORMAT_VERSION:
                    raise ValueError(f"format {entry['format_version']}")
                run = FinishedRun(entry["settings"], entry["metrics"], unpack(entry["correct"]), entry["patches"])
                self.runs[entry["name"]] = run
            except (ValueError, KeyError, TypeError) as error:
                raise DataError(
                    f"{self.path}: line {number} is not a finished run ({error}); delete it to train that run again"
                ) from error

    def add(self, name: str, content: dict[str, Any]) -> None:
        """Appends a run; a process that is killed meanwhile leaves at most an incomplete line, which is overwritten.

        Args:
            name: From `run_name`.
            content: Its facts, those of `FinishedRun` among them.

        Raises:
            OutputError: The file cannot be written.
        """
        line = json.dumps({"name": name, "format_version": FORMAT_VERSION, **content})
        try:
            lock = FileLock(self.path.with_name(f".{self.path.name}.lock"), fallback_to_soft=False)
            with lock, self.path.open("ab+") as file:
                file.truncate(_complete(file.seek(0, os.SEEK_END), file))
                file.write(line.encode() + b"\n")
        except OSError as error:
            raise OutputError(f"{self.path}: cannot be written ({error.strerror}); free some space") from error
        self.read()


def _complete(size: int, file: Any) -> int:
    """The length of a file without an incomplete last line."""
    block = 65536
    for start in range(max(0, size - block), -block, -block):
        file.seek(max(0, start))
        if (end := file.read(block).rfind(b"\n")) >= 0:
            return int(max(0, start) + end + 1)
    return 0


def relevant_settings(settings: TrainSettings) -> dict[str, Any]:
    """The settings that decide the result of a training; a file of weights is known by its content."""
    facts = {name: value for name, value in settings.to_json().items() if name not in IRRELEVANT}
    file = weights_file(settings.weights)
    if file and file.is_file():
        facts["weights"] = f"sha256:{hashlib.sha256(file.read_bytes()).hexdigest()}"
    return facts


def run_name(settings: TrainSettings, fingerprint: str) -> str:
    """A name for the run of these settings on these patches: readable, with a digest that makes it unique."""
    # Settings at their defaults are left out, so that a setting added later does not rename older runs.
    defaults = relevant_settings(TrainSettings(data=""))
    chosen = {name: value for name, value in relevant_settings(settings).items() if value != defaults[name]}
    digest = hashlib.sha256(json.dumps([chosen, fingerprint], sort_keys=True).encode()).hexdigest()
    frozen = "-frozen" if settings.freeze else ""
    name = f"{settings.split}_{settings.backbone}{frozen}_{settings.imbalance}_{settings.loss}_{settings.seed}"
    return f"{name.replace(':', '-')}_{digest[:10]}"


def fingerprint_of(patches: Patches) -> str:
    """A hash of names, labels, pixels and radiometry of a data set."""
    digest = hashlib.sha256(repr((patches.names, patches.bands, patches.scaling)).encode())
    digest.update(patches.labels.tobytes())
    digest.update(np.ascontiguousarray(patches.pixels).tobytes())
    return digest.hexdigest()


def patch_list_digest(patches: Patches, indices: NDArray[np.int64]) -> str:
    """A hash of the names of the patches at `indices`."""
    return hashlib.sha256("\n".join(patches.names[i] for i in indices).encode()).hexdigest()


def pack(correct: NDArray[np.bool_]) -> dict[str, Any]:
    """(n,) booleans as one bit each, for JSON."""
    return {"n": len(correct), "bits": b64encode(np.packbits(correct).tobytes()).decode()}


def unpack(packed: dict[str, Any]) -> NDArray[np.bool_]:
    """Reads what `pack` returned."""
    bits = np.frombuffer(b64decode(packed["bits"]), np.uint8)
    return np.unpackbits(bits, count=packed["n"]).astype(bool)

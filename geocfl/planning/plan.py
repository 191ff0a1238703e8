"""What a run over many scenes will take: a few of them measured here, before anything is mapped."""

from __future__ import annotations

import math
import tempfile
import time
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any, Unpack

import numpy as np

from geocfl.core.progress import Progress, silent
from geocfl.core.table import align
from geocfl.errors import GeocflError, SceneError, UsageError
from geocfl.mapping.mapper import SCENES_AT_ONCE, Mapper
from geocfl.mapping.settings import MapOptions, MapSettings
from geocfl.models.bundle import DEFAULT_MODEL, Bundle
from geocfl.planning.profile import SIDE, Cost, Stage, cores, measure, write_stand_in
from geocfl.scenes import Source
from geocfl.scenes.collect import list_scenes
from geocfl.scenes.remote import is_remote

LOOKED_AT = 3
"""Scenes that are measured, spread evenly over the list; the others are taken to be like them."""
TRIED = 9
"""Scenes that are tried for that, spread likewise, where some cannot be mapped."""
BUSY = 0.75
"""A classifier on a CPU that gets less of the cores than this shares them with something else."""


@dataclass(frozen=True)
class Plan:
    """What a run will take.

    Attributes:
        scenes: Scenes, or tiles, in all, without those that were left out.
        costs: What those that were measured take.
        unreadable: Why scenes were left out: they cannot be read, or were to be measured and cannot be mapped.
        stand_in: Whether a generated tile was measured, as there was no scene.
        machines: Machines like this one that share the scenes.
        cores: Of this machine's processor, as this process may use them.
        classifier: Back end and device.
        load: Seconds until a machine's classifier is ready.
        read_rate: Megabytes a second at which each machine gets its files, in addition to what was measured; None where
            that was not stated.
        remote: Whether scenes were measured over the network.
    """

    scenes: int
    costs: tuple[Cost, ...]
    unreadable: tuple[str, ...]
    stand_in: bool
    machines: int
    cores: int
    classifier: str
    load: float
    read_rate: float | None
    remote: bool

    def _mean(self, values: Iterable[float]) -> float:
        return sum(values) / len(self.costs)

    @property
    def windows(self) -> int:
        """Windows to classify, in all."""
        return round(self.scenes * self._mean(cost.windows for cost in self.costs))

    @property
    def bytes_read(self) -> int | None:
        """Bytes to read, in all; None where that is not known."""
        sizes = [cost.bytes_read for cost in self.costs if cost.bytes_read is not None]
        return round(self.scenes * self._mean(sizes)) if len(sizes) == len(self.costs) else None

    @property
    def bytes_written(self) -> int:
        """Bytes to write, in all."""
        return round(self.scenes * self._mean(cost.bytes_written for cost in self.costs))

    @property
    def stages(self) -> dict[str, Stage]:
        """The steps of a scene in the mean, as `Cost` has them, what the stated read rate adds included."""
        stages = {
            name: Stage(
                self._mean(getattr(cost, name).seconds for cost in self.costs),
                self._mean(getattr(cost, name).processor for cost in self.costs),
            )
            for name in ("start", "read", "classify", "write")
        }
        if self.read_rate and self.bytes_read:
            transfer = self.bytes_read / self.scenes / (1e6 * self.read_rate)
            stages["read"] = replace(stages["read"], seconds=stages["read"].seconds + transfer)
        return stages

    def _limits(self) -> tuple[float, float]:
        """Seconds a scene for the steps that wait for each other, and for the processor that they share."""
        stages = self.stages
        turn = max(stages["read"].seconds, stages["classify"].seconds)
        alternating = (stages["start"].seconds + turn + stages["write"].seconds) / SCENES_AT_ONCE
        return max(turn, alternating), sum(stage.processor for stage in stages.values()) / self.cores

    @property
    def seconds_per_scene(self) -> float:
        """Seconds from one scene's end to the next one's, on one machine.

        While a scene is classified its own next strip is read, another scene is opened or its products are written:
        the slowest of these counts, unless their processor time on all cores takes longer still.
        """
        return max(self._limits())

    @property
    def seconds(self) -> float:
        """Seconds from begin to end, with all machines."""
        ends = self.load + self.stages["start"].seconds + self.stages["write"].seconds
        return ends + math.ceil(self.scenes / self.machines) * self.seconds_per_scene

    @property
    def bound(self) -> str:
        """The step, named as in `Cost`, that takes longest, or most of the processor where that is what is short."""
        waiting, processor = self._limits()
        stages = self.stages
        by = "processor" if processor > waiting else "seconds"
        return max(stages, key=lambda name: float(getattr(stages[name], by)))

    def to_json(self) -> dict[str, Any]:
        """Everything, ready for JSON."""
        totals = {
            "windows": self.windows,
            "hours": self.seconds / 3600,
            "bytes_read": self.bytes_read,
            "bytes_written": self.bytes_written,
            "bound": self.bound,
            "seconds_per_scene": self.seconds_per_scene,
        }
        return totals | asdict(self)

    def table(self) -> str:
        """The plan as plain text, without a newline at its end."""
        stages, each = self.stages, 1 / self.scenes
        words = {"start": "open and hash", "read": "read", "classify": "classify", "write": "write products"}
        read = self.bytes_read
        by = f"{self.machines:,} machine{'s' if self.machines > 1 else ''}"
        rows = [
            ("windows", f"{round(self.windows * each):,}", f"{self.windows:,}"),
            *((words[name], _seconds(stage.seconds), "") for name, stage in stages.items()),
            ("time, with the steps overlapping", _seconds(self.seconds_per_scene), f"{_hours(self.seconds)}, {by}"),
            ("to read", _bytes(read and read * each), _bytes(read)),
            ("to write", _bytes(self.bytes_written * each), _bytes(self.bytes_written)),
        ]
        lines = [
            align([("", "a scene", f"{self.scenes:,} scene{'s' if self.scenes > 1 else ''}"), *rows], text_columns=[0]),
            "",
        ]
        return "\n".join([*lines, *self._notes()])

    def _notes(self) -> Iterator[str]:
        """What the numbers rest on, a sentence each."""
        doing = {"start": "Opening scenes", "read": "Reading", "classify": "Classifying", "write": "Writing products"}
        yield f"{doing[self.bound]} bounds it."
        names = ", ".join(cost.scene for cost in self.costs)
        cores = f"{self.cores} core{'s' if self.cores > 1 else ''}"
        if self.stand_in:
            yield (
                f"Measured on a generated scene, scaled up to tiles of {SIDE:,} x {SIDE:,} px; "
                "real ones compress differently, so pass one of yours."
            )
        else:
            like = f"; the other {self.scenes - len(self.costs):,} are taken to be like that"
            yield f"Measured on {names}{like if self.scenes > len(self.costs) else ''}."
        yield f"Each machine is assumed to be like this one: {cores}, {self.classifier}."
        classify = self.stages["classify"]
        if " on cpu" in self.classifier and classify.processor < BUSY * self.cores * classify.seconds:
            share, alone = classify.processor / classify.seconds, self._limits()[1]
            yield (
                f"It was busy with other work, of {cores} classifying got {share:.1f}: alone, a scene takes it about "
                f"{_seconds(alone)}. Plan again when it is idle."
            )
        if self.read_rate:
            yield f"Files come at {self.read_rate:g} MB/s to each machine, as --read-rate says; decoding was measured."
        elif self.remote:
            yield "Reading was measured over the network, which machines may share."
        else:
            yield (
                "Files were read on this machine, perhaps from its memory; where they are slower to come by, say how "
                "fast with --read-rate."
            )
        if self.machines > 1 and self.bytes_read is not None:
            yield f"Together the machines read {_bytes(self.bytes_read / self.seconds)} a second."
        if self.unreadable:
            yield f"Left out, as they cannot be mapped: {'; '.join(self.unreadable)}."


def plan(
    scenes: str | Path | Source | Iterable[str | Path | Source] = (),
    *,
    tiles: int | None = None,
    machines: int = 1,
    read_rate: float | None = None,
    list_file: str | Path | None = None,
    stac_items: str | Path | None = None,
    model: str | Path = DEFAULT_MODEL,
    device: str = "auto",
    batch_size: int | None = None,
    memory: int | str | None = None,
    progress: Progress = silent,
    **options: Unpack[MapOptions],
) -> Plan:
    """Finds out what a run of `geocfl.map_scenes` will take, in seconds and without writing anything that stays.

    Of up to three of the scenes, some strips are read, some windows classified, and a map of theirs repeated to the
    scene's size is written into a temporary folder.

    Args:
        scenes: As for `geocfl.map_scenes`, or a single one; likewise `list_file` and `stac_items`.
        tiles: Plan for this number of scenes like the given ones instead, or where none is given like a generated one
            of a tile's 10,980 x 10,980 pixels. All land is some 20,000 tiles.
        machines: Machines like this one that share the scenes.
        read_rate: Megabytes a second at which each machine gets its files; as fast as it was here by default.
        list_file: Likewise.
        stac_items: Likewise.
        model: As for `geocfl.map_scene`; likewise `device`, `batch_size`, `memory` and the settings.
        device: Likewise.
        batch_size: Likewise.
        memory: Likewise.
        progress: Told of the scenes that are measured.
        **options: Fields of `MapSettings`.

    Raises:
        UsageError: There is nothing to plan for, or an option is out of its range.
        GeocflError: The model cannot be used, or no scene can be mapped.
    """
    for option, value in (("tiles", tiles), ("machines", machines)):
        if value is not None and value < 1:
            raise UsageError(f"`{option}` is {value} but must be at least 1")
    if read_rate is not None and not 0 < read_rate < math.inf:
        raise UsageError(f"`read_rate` is {read_rate:g} but must be above 0, in megabytes per second")
    chosen = MapSettings(**options)
    mapper = Mapper(Bundle.load(model), chosen, device=device, batch_size=batch_size, memory=memory)
    named = [scenes] if isinstance(scenes, str | Path | Source) else [*scenes]
    stand_in = not (named or list_file or stac_items)
    if stand_in and tiles is None:
        raise UsageError("nothing to plan for; give scenes, or a number of tiles with `tiles`")
    if stand_in and (chosen.bbox or chosen.aoi or chosen.mask):
        raise UsageError("`bbox`, `aoi` and `mask` need scenes; give some of yours")
    with tempfile.TemporaryDirectory(prefix="geocfl-plan-") as folder:
        if stand_in:
            sources, errors = [write_stand_in(Path(folder), mapper.model)], []
        else:
            listed = list_scenes(named, list_file=list_file, stac_items=stac_items, bands=chosen.bands)
            sources = [scene.source for scene in listed if scene.source]
            errors = [scene.error for scene in listed if scene.error]
            if not sources:
                raise errors[0]
        started = time.perf_counter()
        mapper.rate  # noqa: B018, loads the back end and warms it up
        load = time.perf_counter() - started
        measured, failed = _measured(mapper, sources, Path(folder), stand_in, read_rate, progress)
    return Plan(
        scenes=tiles or len(sources) - len(failed),
        costs=tuple(cost for _, cost in measured),
        unreadable=tuple(str(error) for error in [*errors, *failed]),
        stand_in=stand_in,
        machines=machines,
        cores=cores(),
        classifier=repr(mapper.backend),
        load=load,
        read_rate=read_rate,
        remote=any(is_remote(band.path) for source, _ in measured for band in source.bands.values()),
    )


def _measured(
    mapper: Mapper,
    sources: Sequence[Source],
    folder: Path,
    stand_in: bool,
    read_rate: float | None,
    progress: Progress,
) -> tuple[list[tuple[Source, Cost]], list[GeocflError]]:
    """Measures up to `LOOKED_AT` of the scenes, others in the place of those that cannot be mapped.

    Returns:
        Those that were measured, with what they take, and why others were not.

    Raises:
        UsageError: `read_rate` is given, but not known how many bytes a scene has.
        SceneError: None of those that were tried can be mapped.
    """
    wanted = min(LOOKED_AT, len(sources))
    measured: list[tuple[Source, Cost]] = []
    failed: list[GeocflError] = []
    progress("plan", 0, wanted, "scene")
    for index in dict.fromkeys([*_spread(len(sources), LOOKED_AT), *_spread(len(sources), TRIED)]):
        source = sources[index]
        try:
            cost = measure(mapper, source, folder, stand_in)
        except SceneError as error:
            failed.append(error)
            continue
        if read_rate and cost.bytes_read is None:
            raise UsageError(f"--read-rate {read_rate:g}: how many bytes {cost.scene} has is not known; leave it out")
        measured.append((source, cost))
        progress("plan", len(measured), wanted, "scene")
        if len(measured) == wanted:
            break
    if not measured:
        raise failed[-1]
    if len(measured) < wanted:
        progress("plan", wanted, wanted, "scene")
    return measured, failed


def _spread(count: int, some: int) -> list[int]:
    """So many indices of `count` at most, from the first to the last one."""
    indices: list[int] = np.unique(np.linspace(0, count - 1, some).round().astype(int)).tolist()
    return indices


def _seconds(seconds: float) -> str:
    return f"{seconds:.1f} s" if seconds < 100 else f"{seconds / 60:,.0f} min"


def _hours(seconds: float) -> str:
    if seconds < 3600:
        return _seconds(seconds)
    hours = seconds / 3600
    return f"{hours:.1f} h" if hours < 100 else f"{hours:,.0f} h or {hours / 24:,.0f} days"


def _bytes(size: float | None) -> str:
    if size is None:
        return "unknown"
    for unit in ("B", "kB", "MB", "GB", "TB"):
        if size < 999.5 or unit == "TB":  # what rounds to 1,000 is one of the next unit
            break
        size /= 1000
    return f"{size:,.3g} {unit}" if size < 999.5 else f"{size:,.0f} {unit}"

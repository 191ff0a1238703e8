"""Estimates the time and size of a run over many scenes from measurements on a few of them."""

from __future__ import annotations

import math
import tempfile
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any, Unpack

import numpy as np

from geocfl.core.keywords import declared
from geocfl.core.machine import cores
from geocfl.core.progress import Progress, silent
from geocfl.core.table import align
from geocfl.errors import GeocflError, SceneError, UsageError
from geocfl.mapping.mapper import SCENES_AT_ONCE, Mapper
from geocfl.mapping.settings import MapOptions, MapSettings
from geocfl.models.bundle import DEFAULT_MODEL, Bundle
from geocfl.planning.actual import Actual, read_actual
from geocfl.planning.profile import SIDE, Cost, Stage, measure_scene, write_stand_in
from geocfl.scenes import Source
from geocfl.scenes.collect import list_scenes
from geocfl.scenes.urls import is_remote

MEASURED = 3
"""Number of scenes to measure, spread evenly over the list; the others are assumed to be similar."""
TRIED = 9
"""Number of scenes to try, spread evenly over the list, if some of them cannot be mapped."""
BUSY = 0.75
"""If a classifier on a CPU uses less than this share of the cores, other programs are using them too."""


@dataclass(frozen=True)
class Plan:
    """Estimated time and size of a run.

    Attributes:
        scenes: Number of scenes, those of all dates, without those that were left out.
        costs: Costs of the scenes that were measured.
        unreadable: Why scenes were left out: they cannot be read, or were to be measured and cannot be mapped.
        stand_in: Whether a synthetic tile was measured because no scene was given.
        machines: Number of machines like this one that share the scenes.
        cores: CPU cores that this process may use.
        classifier: Back end and device.
        load: Seconds that a machine needs to load the classifier.
        read_rate: Megabytes per second at which each machine receives files, which adds to the measured time of
            reading. None if not given.
        remote: Whether scenes were read over the network.
        dates: Number of dates of each scene.
        cloud_share: Share of the windows that clouds hide on average, which are read but not classified, 0..1.
        retry_share: Share of the scenes that are mapped a second time, 0..1.
        price_hour: Price of a machine for an hour, in any currency; None if unknown.
        actual: What earlier runs took; None if not given.
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
    dates: int = 1
    cloud_share: float = 0.0
    retry_share: float = 0.0
    price_hour: float | None = None
    actual: Actual | None = None

    def _mean(self, values: Iterable[float]) -> float:
        return sum(values) / len(self.costs)

    @property
    def windows(self) -> int:
        """Total number of windows to classify."""
        return round(self.scenes * (1 - self.cloud_share) * self._mean(cost.windows for cost in self.costs))

    @property
    def bytes_read(self) -> int | None:
        """Total number of bytes to read; None if unknown."""
        sizes = [cost.bytes_read for cost in self.costs if cost.bytes_read is not None]
        return round(self.scenes * self._mean(sizes)) if len(sizes) == len(self.costs) else None

    @property
    def bytes_written(self) -> int:
        """Total number of bytes to write."""
        return round(self.scenes * self._mean(cost.bytes_written for cost in self.costs))

    @property
    def bytes_hashed(self) -> int:
        """Total number of bytes of local files that are read to identify the scenes."""
        return round(self.scenes * self._mean(cost.bytes_hashed for cost in self.costs))

    @property
    def requests(self) -> int:
        """Total number of requests to servers for reading, with those of retried scenes."""
        return round(self._attempts * self._mean(cost.requests for cost in self.costs))

    @property
    def price(self) -> float | None:
        """Price of all machines for the whole time; None if `price_hour` is unknown."""
        return None if self.price_hour is None else self.machines * self.seconds / 3600 * self.price_hour

    @property
    def _attempts(self) -> float:
        return self.scenes * (1 + self.retry_share)

    @property
    def stages(self) -> dict[str, Stage]:
        """The steps of a scene as in `Cost`, averaged over the measured scenes, with the time that `read_rate` adds."""
        stages = {
            name: Stage(
                self._mean(getattr(cost, name).seconds for cost in self.costs),
                self._mean(getattr(cost, name).processor for cost in self.costs),
            )
            for name in ("start", "read", "classify", "write")
        }
        classify, shown = stages["classify"], 1 - self.cloud_share
        stages["classify"] = Stage(shown * classify.seconds, shown * classify.processor)
        if self.read_rate:  # what was hashed is still in memory when it is read
            hashed, read = self.bytes_hashed / self.scenes, (self.bytes_read or 0) / self.scenes
            for name, size in (("start", hashed), ("read", max(0.0, read - hashed))):
                transfer = size / (1e6 * self.read_rate)
                stages[name] = replace(stages[name], seconds=stages[name].seconds + transfer)
        return stages

    def _limits(self) -> tuple[float, float]:
        """Seconds per scene that the elapsed times of its steps allow, and that the CPU they share allows."""
        stages = self.stages
        turn = max(stages["read"].seconds, stages["classify"].seconds)
        alternating = (stages["start"].seconds + turn + stages["write"].seconds) / SCENES_AT_ONCE
        return max(turn, alternating), sum(stage.processor for stage in stages.values()) / self.cores

    @property
    def seconds_per_scene(self) -> float:
        """Seconds from the end of one scene to the end of the next, on one machine.

        While a strip is classified, the next one is read, and another scene is opened or written. The slowest step
        decides, or the CPU time of all steps divided by the cores if that is longer.
        """
        return max(self._limits())

    @property
    def seconds(self) -> float:
        """Total number of seconds with all machines."""
        ends = self.load + self.stages["start"].seconds + self.stages["write"].seconds
        return ends + math.ceil(self._attempts / self.machines) * self.seconds_per_scene

    @property
    def bottleneck(self) -> str:
        """The slowest step, named as in `Cost`; the step with the most CPU time if the CPU is the limit."""
        waiting, processor = self._limits()
        stages = self.stages
        by = "processor" if processor > waiting else "seconds"
        return max(stages, key=lambda name: float(getattr(stages[name], by)))

    def to_json(self) -> dict[str, Any]:
        """All values and totals as JSON."""
        totals = {
            "windows": self.windows,
            "hours": self.seconds / 3600,
            "bytes_read": self.bytes_read,
            "bytes_hashed": self.bytes_hashed,
            "bytes_written": self.bytes_written,
            "requests": self.requests,
            "price": self.price,
            "bottleneck": self.bottleneck,
            "seconds_per_scene": self.seconds_per_scene,
        }
        return totals | asdict(self)

    def table(self) -> str:
        """The plan as plain text without a trailing newline."""
        stages, each = self.stages, 1 / self.scenes
        words = {"start": "open and hash", "read": "read", "classify": "classify", "write": "write products"}
        read = self.bytes_read
        by = f"{self.machines:,} machine{'s' if self.machines > 1 else ''}"
        rows = [
            ("windows", f"{round(self.windows * each):,}", f"{self.windows:,}"),
            *((words[name], _seconds(stage.seconds), "") for name, stage in stages.items()),
            ("time with overlapping steps", _seconds(self.seconds_per_scene), f"{_hours(self.seconds)}, {by}"),
            *(
                [("bytes to hash", _bytes(self.bytes_hashed * each), _bytes(self.bytes_hashed))]
                * bool(self.bytes_hashed)
            ),
            ("bytes to read", _bytes(read and read * each), _bytes(read)),
            ("bytes to write", _bytes(self.bytes_written * each), _bytes(self.bytes_written)),
            *([("requests", f"{self.requests * each:,.0f}", f"{self.requests:,}")] * bool(self.requests)),
            *([("price", in_money(self.price * each), in_money(self.price))] if self.price is not None else []),
        ]
        lines = [
            align(
                [("", "per scene", f"{self.scenes:,} scene{'s' if self.scenes > 1 else ''}"), *rows], text_columns=[0]
            ),
            "",
        ]
        return "\n".join([*lines, *self._notes(), *self._compared()])

    def _compared(self) -> list[str]:
        """A table of the plan beside what earlier runs took; empty without them."""
        actual = self.actual
        if actual is None:
            return []
        words = {"start": "open and hash", "read": "read", "classify": "classify", "write": "write products"}
        each = self.seconds / math.ceil(self._attempts / self.machines)
        rows = [
            ("windows", f"{self.windows / self.scenes:,.0f}", f"{actual.windows:,.0f}"),
            *((words[name], _seconds(self.stages[name].seconds), _seconds(it)) for name, it in actual.seconds.items()),
            ("time on one machine", _seconds(each), _seconds(actual.seconds_per_scene)),
            ("bytes to write", _bytes(self.bytes_written / self.scenes), _bytes(actual.bytes_written)),
            ("attempts", f"{1 + self.retry_share:.2f}", f"{actual.attempts:.2f}"),
        ]
        count = f"{actual.scenes:,} scene{'s' if actual.scenes > 1 else ''}"
        machines = f"{actual.hosts:,} machine{'s' if actual.hosts > 1 else ''}"
        failed = f"; {actual.failed:,} failed" if actual.failed else ""
        note = f"An earlier run mapped {count} on {machines}{failed}. Its times to classify include waiting for pixels."
        return ["", align([("per scene", "predicted", "actual"), *rows], text_columns=[0]), "", note]

    def _notes(self) -> Iterator[str]:
        """The assumptions, one sentence each."""
        doing = {"start": "opening scenes", "read": "reading", "classify": "classifying", "write": "writing products"}
        yield f"The bottleneck is {doing[self.bottleneck]}."
        names = ", ".join(cost.scene for cost in self.costs)
        cores = f"{self.cores} core{'s' if self.cores > 1 else ''}"
        if self.stand_in:
            yield (
                f"Measured on a synthetic scene and scaled up to tiles of {SIDE:,} x {SIDE:,} px. Real scenes compress "
                "differently; for a better estimate, pass one of yours."
            )
        else:
            like = f"; the other {self.scenes - len(self.costs):,} are assumed to be similar"
            yield f"Measured on {names}{like if self.scenes > len(self.costs) else ''}."
        yield f"Each machine is assumed to be like this one: {cores}, {self.classifier}."
        classify = self.stages["classify"]
        if " on cpu" in self.classifier and classify.processor < BUSY * self.cores * classify.seconds:
            share, idle = classify.processor / classify.seconds, self._limits()[1]
            yield (
                f"Other programs kept it busy: classifying got only {share:.1f} of {cores}. When it is idle, a scene "
                f"takes about {_seconds(idle)}; plan again then."
            )
        if self.read_rate:
            yield f"Each machine receives files at {self.read_rate:g} MB/s (`read_rate`); decoding was measured."
        elif self.remote:
            yield "Reading was measured over the network; machines may have to share its bandwidth."
        else:
            yield (
                "Files were read on this machine, possibly from its cache; if they arrive more slowly, pass their rate "
                "as `read_rate`."
            )
        if self.dates > 1:
            yield f"Each scene is mapped at {self.dates:,} dates."
        if self.cloud_share:
            yield f"Clouds hide {self.cloud_share:.0%} of the windows, which are read but not classified."
        if self.retry_share:
            yield f"{self.retry_share:.0%} of the scenes count twice, although a retried scene resumes."
        if self.machines > 1 and self.bytes_read is not None:
            yield f"Together, the machines read {_bytes(self.bytes_read / self.seconds)} per second."
        if self.unreadable:
            yield f"Left out because they cannot be mapped: {'; '.join(self.unreadable)}."


@declared
def plan(
    scenes: str | Path | Source | Iterable[str | Path | Source] = (),
    *,
    tiles: int | None = None,
    machines: int = 1,
    read_rate: float | None = None,
    dates: int = 1,
    cloud_share: float = 0.0,
    retry_share: float = 0.0,
    price_hour: float | None = None,
    events: str | Path | None = None,
    list_file: str | Path | None = None,
    stac_items: str | Path | None = None,
    model: str | Path = DEFAULT_MODEL,
    device: str = "auto",
    batch_size: int | None = None,
    memory: int | str | None = None,
    progress: Progress = silent,
    **options: Unpack[MapOptions],
) -> Plan:
    """Estimates the time and size of a run of `geocfl.map_scenes` in seconds, and leaves no files behind.

    Reads a few strips of up to three scenes, classifies some of their windows, and writes a map of the scene's size,
    made of the classified cells, into a temporary folder.

    Args:
        scenes: As in `geocfl.map_scenes`, or a single scene.
        tiles: Plan for this number of similar scenes. Without scenes, a synthetic tile of 10,980 x 10,980 pixels is
            measured. All land is about 20,000 tiles.
        machines: Number of machines like this one that share the scenes.
        read_rate: Megabytes per second at which each machine receives files; None for the measured rate.
        dates: Number of dates of each scene, which all are mapped.
        cloud_share: Share of the ground that clouds hide on average, 0..1, if a mask will be used.
        retry_share: Share of the scenes that fail for a time and are mapped again, 0..1.
        price_hour: Price of a machine for an hour, in any currency.
        events: Events of an earlier run, or the folder that holds them, to compare the plan with.
        list_file: As in `geocfl.map_scenes`.
        stac_items: As in `geocfl.map_scenes`.
        model: As in `geocfl.map_scene`.
        device: As in `geocfl.map_scene`.
        batch_size: As in `geocfl.map_scene`.
        memory: As in `geocfl.map_scene`.
        progress: Called with the number of scenes measured.
        **options: Fields of `MapSettings`.

    Returns:
        The estimate, with the measured cost of each step.

    Raises:
        UsageError: There are neither scenes nor `tiles`, or a value is out of range.
        GeocflError: The model cannot be used, or no scene can be mapped.
    """
    _check_numbers(
        tiles, machines, dates, {"cloud_share": cloud_share, "retry_share": retry_share}, read_rate, price_hour
    )
    chosen = MapSettings(**options)
    if cloud_share and chosen.mask:
        raise UsageError("`cloud_share` stands for a mask, and `mask` is measured; use one of them")
    mapper = Mapper(Bundle.load(model), chosen, device=device, batch_size=batch_size, memory=memory)
    actual = read_actual(events, mapper.model.name, mapper.settings.to_json()) if events else None
    named = [scenes] if isinstance(scenes, str | Path | Source) else [*scenes]
    stand_in = not (named or list_file or stac_items)
    if stand_in and tiles is None:
        raise UsageError("nothing to plan for; pass scenes, or a number of tiles as `tiles`")
    if stand_in and (chosen.bbox or chosen.aoi or chosen.mask):
        raise UsageError("`bbox`, `aoi` and `mask` need scenes; pass some")
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
        mapper.classifier.backend  # noqa: B018, loads it
        load = time.perf_counter() - started
        measured, failed = _measured(mapper, sources, Path(folder), stand_in, read_rate, progress)
    return Plan(
        scenes=(tiles or len(sources) - len(failed)) * dates,
        costs=tuple(cost for _, cost in measured),
        unreadable=tuple(str(error) for error in [*errors, *failed]),
        stand_in=stand_in,
        machines=machines,
        cores=cores(),
        classifier=repr(mapper.classifier.backend),
        load=load,
        read_rate=read_rate,
        remote=any(is_remote(band.path) for source, _ in measured for band in source.bands.values()),
        dates=dates,
        cloud_share=cloud_share,
        retry_share=retry_share,
        price_hour=price_hour,
        actual=actual,
    )


def _check_numbers(
    tiles: int | None,
    machines: int,
    dates: int,
    shares: Mapping[str, float],
    read_rate: float | None,
    price_hour: float | None,
) -> None:
    """Raises UsageError if a number is out of range."""
    for option, value in (("tiles", tiles), ("machines", machines), ("dates", dates)):
        if value is not None and value < 1:
            raise UsageError(f"`{option}` is {value} but must be at least 1")
    for option, share in shares.items():
        if not 0 <= share <= 1:
            raise UsageError(f"`{option}` is {share:g} but must be 0 to 1")
    if price_hour is not None and not 0 <= price_hour < math.inf:
        raise UsageError(f"`price_hour` is {price_hour:g} but must be the price of an hour, 0 or more")
    if read_rate is not None and not 0 < read_rate < math.inf:
        raise UsageError(f"`read_rate` is {read_rate:g} but must be above 0, in megabytes per second")


def _measured(
    mapper: Mapper,
    sources: Sequence[Source],
    folder: Path,
    stand_in: bool,
    read_rate: float | None,
    progress: Progress,
) -> tuple[list[tuple[Source, Cost]], list[GeocflError]]:
    """Measures up to `MEASURED` scenes, and tries others if some cannot be mapped.

    Returns:
        The measured scenes with their costs, and the errors of those that cannot be mapped.

    Raises:
        UsageError: `read_rate` is given, but the size of a scene is unknown.
        SceneError: None of the scenes tried can be mapped.
    """
    wanted = min(MEASURED, len(sources))
    measured: list[tuple[Source, Cost]] = []
    failed: list[GeocflError] = []
    progress("plan", 0, wanted, "scene")
    for index in dict.fromkeys([*_spread(len(sources), MEASURED), *_spread(len(sources), TRIED)]):
        source = sources[index]
        try:
            cost = measure_scene(mapper, source, folder, stand_in)
        except SceneError as error:
            failed.append(error)
            continue
        if read_rate and cost.bytes_read is None:
            raise UsageError(f"`read_rate` needs the size of {cost.scene}, which is unknown; leave `read_rate` out")
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
    """Up to `some` indices below `count`, evenly spaced from the first to the last."""
    indices: list[int] = np.unique(np.linspace(0, count - 1, some).round().astype(int)).tolist()
    return indices


def _seconds(seconds: float) -> str:
    return f"{seconds:.1f} s" if seconds < 100 else f"{seconds / 60:,.0f} min"


def _hours(seconds: float) -> str:
    if seconds < 3600:
        return _seconds(seconds)
    hours = seconds / 3600
    return f"{hours:.1f} h" if hours < 100 else f"{hours:,.0f} h or {hours / 24:,.0f} days"


def in_money(price: float) -> str:
    """A price to the cent, or to two significant digits if it is less than one."""
    return f"{price:,.2f}" if price >= 1 else f"{price:.{1 - math.floor(math.log10(price))}f}" if price else "0"


def _bytes(size: float | None) -> str:
    if size is None:
        return "unknown"
    for unit in ("B", "kB", "MB", "GB", "TB"):
        if size < 999.5 or unit == "TB":  # a value that rounds to 1,000 goes to the next unit
            break
        size /= 1000
    return f"{size:,.3g} {unit}" if size < 999.5 else f"{size:,.0f} {unit}"

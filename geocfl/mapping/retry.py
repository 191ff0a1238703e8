"""The scenes that failed in an earlier run, from its events."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from geocfl.core.progress import Progress, silent
from geocfl.errors import UsageError
from geocfl.mapping.events import PAGE, outcomes, read_events
from geocfl.scenes.bands import BandNumbers
from geocfl.scenes.collect import Listed, list_scenes
from geocfl.scenes.urls import without_secrets


@dataclass(frozen=True)
class Again:
    """Scenes that failed in an earlier run.

    Attributes:
        scenes: The scenes, under the names that they had there.
        listed: Number of scenes of that run, in all shards.
        identity: What `geocfl.mapping.events.list_identity` gave for them; empty if the events are of several lists.
    """

    scenes: list[Listed]
    listed: int
    identity: str


def failed_scenes(path: str | Path, listed: Sequence[Listed]) -> set[str]:
    """Paths of the scenes that failed according to a file of events.

    Args:
        path: The file.
        listed: All scenes of the command, without sharding.

    Raises:
        UsageError: It cannot be used, or a scene that failed is not among those listed.
    """
    failed = {event["scene"] for event in _failed(read_events(path).events)}
    if others := sorted(failed.difference(scene.path for scene in listed)):
        raise UsageError(
            f"{path}: {_such_as(others)} failed in that run but is not among the scenes; pass the scenes of that run, "
            "or its own events",
            page=PAGE,
        )
    return failed


def scenes_to_retry(
    path: str | Path, *, bands: BandNumbers | None = None, open_all: bool = True, progress: Progress = silent
) -> Again:
    """Finds the scenes that failed according to a file of events, which names them.

    Args:
        path: The file.
        bands: As for `geocfl.scenes.collect.list_scenes`.
        open_all: As there.
        progress: Called with the number of scenes found.

    Raises:
        UsageError: It cannot be used, or does not say where a scene lies.
        SceneError: A file of STAC Items cannot be read.
    """
    events = read_events(path).events
    failed = _failed(events)
    runs = {event["run"]: event for event in events if event["kind"] == "run"}
    given: list[str] = []
    collections: dict[str, None] = {}
    unknown = []
    for event in failed:
        again, items = event.get("given"), runs.get(event["run"], {}).get("stac_items")
        if isinstance(again, list) and again and all(isinstance(each, str) for each in again):
            given += again
        elif isinstance(items, str) and event["scene"].startswith(f"{items}#"):
            collections[items] = None
        else:
            unknown.append(event["scene"])
    if unknown:
        raise UsageError(
            f"{path}: does not say where {_such_as(unknown)} lies, because events hold no signed links and passwords; "
            "pass the scenes of that run too",
            page=PAGE,
        )
    found = list_scenes(given, bands=bands, open_all=open_all, progress=progress) if given else []
    for items in collections:
        found += list_scenes(stac_items=items, bands=bands)
    names = {event["scene"] for event in failed}
    lists = {runs[event["run"]]["list"]: runs[event["run"]]["listed"] for event in failed if event["run"] in runs}
    identity = next(iter(lists)) if len(lists) == 1 else ""
    return Again([each for each in found if each.path in names], sum(lists.values()) or len(names), identity)


def _failed(events: Sequence[Mapping[str, Any]]) -> list[Mapping[str, Any]]:
    """The last attempts of scenes that failed."""
    return [event for event in outcomes(events).values() if event["outcome"] == "failed"]


def _such_as(scenes: Sequence[str]) -> str:
    more = f" and {len(scenes) - 1} more" if len(scenes) > 1 else ""
    return f"{without_secrets(scenes[0])}{more}"

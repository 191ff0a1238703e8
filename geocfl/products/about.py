"""What a map says of itself to its readers: when its scene was taken, by which model, how accurate, and whose data."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Self

MONTHS = (
    "January", "February", "March", "April", "May", "June",
    "July", "August", "September", "October", "November", "December",
)  # fmt: skip


@dataclass(frozen=True)
class About:
    """Sentences below a map; each is empty if nothing is known.

    Attributes:
        taken: Sensor, level and date, such as ``"Sentinel-2 L2A, 16 April 2019"``.
        model: Name and accuracy of the model.
        limits: What the accuracy does not cover.
        reading: What a cell stands for.
        credit: Copernicus's notice for data of Sentinel-2, which its license demands.
        maker: The program.
    """

    taken: str = ""
    model: str = ""
    limits: str = ""
    reading: str = ""
    credit: str = ""
    maker: str = ""

    @classmethod
    def of(cls, summary: Mapping[str, Any]) -> Self:
        """What a summary, as in ``S_summary.json``, says."""
        scene, model = summary["scene"], summary["model"]
        when = _when(scene)
        mission = scene.get("mission") or ""
        level = scene["level"] if scene.get("level") in ("L1C", "L2A") else ""
        sensed = " ".join(filter(None, [mission, level if mission else ""]))
        side = summary["cell_size_m"] / summary["settings"]["stride"] * model.get("window", 0)
        return cls(
            taken=", ".join(filter(None, [sensed, day(when) if when else ""])),
            model=_model(model),
            limits="Less accurate on land and in seasons unlike the training data.",
            reading=f"Each cell has the class of a window of {side:g} m." if side else "",
            credit=_credit([scene]),
            maker=f"Made with geocfl {summary['geocfl']}.",
        )

    @classmethod
    def of_change(cls, summary: Mapping[str, Any]) -> Self:
        """What the summary of a change map says."""
        maps = [summary["before"], summary["after"]]
        dates = [day(when) for when in map(_when, maps) if when]
        return cls(
            taken=" to ".join(dates) if len(dates) == len(maps) else "",
            limits="Counted cells, not estimates: errors of both maps count as change.",
            credit=_credit(maps),
            maker=f"Made with geocfl {summary['geocfl']}.",
        )


def _when(scene: Mapping[str, Any]) -> datetime | None:
    return datetime.fromisoformat(scene["datetime"]) if scene.get("datetime") else None


def _credit(scenes: Sequence[Mapping[str, Any]]) -> str:
    """Copernicus's notice with the years of the scenes of Sentinel-2; empty if there are none with a date."""
    dates = [_when(scene) for scene in scenes if scene.get("mission") == "Sentinel-2"]
    years = ", ".join(map(str, sorted({when.year for when in dates if when})))
    return f"Contains modified Copernicus Sentinel data {years}." if years else ""


def day(when: datetime) -> str:
    """A date in words, such as ``"16 April 2019"``, whatever the system's language."""
    return f"{when.day} {MONTHS[when.month - 1]} {when.year}"


def _model(model: Mapping[str, Any]) -> str:
    test = (model.get("origin") or {}).get("metrics", {}).get("test", {})
    if not {"accuracy", "n"} <= set(test):
        return f"Model {model['name']}."
    return f"Model {model['name']}, right on {100 * test['accuracy']:.1f}% of {test['n']:,} test patches."

"""The report of an assessment: one self-contained page with areas, matrix and a map of the errors."""

from __future__ import annotations

import io
import math
from base64 import b64encode
from typing import Any

import matplotlib as mpl
import numpy as np
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

from geocfl.analysis.estimators import Estimates, Z
from geocfl.analysis.strata import Mapped
from geocfl.evaluation import page
from geocfl.evaluation.assessment import Assessment
from geocfl.evaluation.plots import GRID, INK, MUTED, STYLE
from geocfl.products.scene_map import SceneMap

RIGHT, WRONG = "#ffffff", "#d7263d"


def report_page(found: Assessment, finished: Mapped) -> str:
    """The page as HTML; the same assessment gives the same bytes."""
    overall, design = found.accuracy.overall, found.design
    present = found.present()
    with mpl.rc_context(STYLE):
        where = _image(_map_figure(found, finished))
        areas = _image(_area_figure(found, present)) if design is not None else ""
    cards = [(f"{float(overall.value):.1%}", "overall accuracy")]
    if design is not None:
        cards.append((f"{float(overall.low):.1%} to {float(overall.high):.1%}", "95% interval"))
        cards.append((f"{found.hectares:,.0f}", "hectares"))
    cards.append((f"{found.accuracy.counts.sum():,}", "answered points"))
    notes = "".join(f"<p>{page.text(note)}</p>" for note in found.notes)
    parts = [
        f"<h1>{page.text(found.map)}: accuracy{' and areas' if design is not None else ''}</h1>",
        f"<p class='muted'>{page.text(f'Sample: {found.sample}')}</p>",
        page.cards(cards),
        page.section("Read this first", notes),
        page.section("Areas", _area_table(found, present), _figure("areas", areas)) if design is not None else "",
        page.section("Accuracies", _accuracy_table(found, present)),
        page.section(
            "Confusion matrix",
            "<p class='muted'>Map classes in rows, reference classes in columns.</p>",
            "<p>Points</p>",
            _matrix(found, present, counts=True),
            "<p>Estimated shares of the area, %</p>" if design is not None else "",
            _matrix(found, present, counts=False) if design is not None else "",
        ),
        page.section("Where the errors lie", _figure("errors", where)),
        page.section("Methods", f"<p>{page.text(found.methods())}</p>", _sources()),
        page.section("Design", _strata(found), page.facts(_facts(found))) if design is not None else "",
    ]
    return page.document(f"{found.map}: accuracy report", parts)


CAPTIONS = {
    "areas": "Estimated area of each class with its 95% interval (bars, whiskers), and what the map says (diamonds).",
    "errors": "Sampled cells: the map is right at the white points and wrong at the red ones.",
}


def _figure(name: str, image: str) -> str:
    return page.figure(name, image, CAPTIONS[name]) if image else ""


def _image(figure: Figure) -> str:
    """A figure as a data URI."""
    FigureCanvasAgg(figure)
    figure.savefig(content := io.BytesIO(), format="png", dpi=130, bbox_inches="tight", metadata={"Software": None})
    return f"data:image/png;base64,{b64encode(content.getvalue()).decode()}"


def _area_figure(found: Assessment, present: list[int]) -> Figure:
    """Bars of estimated areas with intervals, and the map's own hectares."""
    area = found.accuracy.area
    figure = Figure(figsize=(9, 1.2 + 0.42 * len(present)), layout="constrained")
    axes = figure.subplots()
    for position, k in enumerate(present):
        value, low, high = (found.hectares * float(part[k]) for part in (area.value, area.low, area.high))
        axes.barh(position, value, 0.6, color=found.classes[k].color, edgecolor=MUTED, linewidth=0.5)
        axes.errorbar(value, position, xerr=[[value - low], [high - value]], color=INK, capsize=4, linewidth=1.4)
        if not math.isnan(found.mapped(k)):
            axes.plot(found.mapped(k), position, "D", color="white", markeredgecolor=INK, markersize=6)
    axes.set_yticks(range(len(present)), [found.classes[k].name for k in present])
    axes.invert_yaxis()
    axes.set_xlim(left=0)
    axes.xaxis.set_major_formatter("{x:,.0f}")
    axes.set_xlabel("hectares")
    axes.grid(axis="x", color=GRID)
    return figure


def _map_figure(found: Assessment, finished: Mapped) -> Figure:
    """The map, pale, with the points."""
    figure = Figure(figsize=(9, 6), layout="constrained")
    axes = figure.subplots()
    if isinstance(finished, SceneMap):
        finished.plot(axes, legend=False)
        axes.images[0].set_alpha(0.55)
    x, y = found.places.T
    marks: dict[str, Any] = {"s": 16, "edgecolors": INK, "linewidths": 0.6}
    axes.scatter(x[found.correct], y[found.correct], c=RIGHT, label="right", **marks)
    axes.scatter(x[~found.correct], y[~found.correct], c=WRONG, label="wrong", **marks)
    axes.set_title("")
    axes.legend(loc="upper left", bbox_to_anchor=(1.01, 1))
    return figure


def _name(found: Assessment, k: int) -> str:
    return f"{page.swatch(found.classes[k].color)}{page.text(found.classes[k].name)}"


def _area_table(found: Assessment, present: list[int]) -> str:
    rows = []
    for k in present:
        area = found.accuracy.area[k]
        value, half, low, high = (
            f"{found.hectares * float(part):,.1f}" for part in (area.value, Z * area.error, area.low, area.high)
        )
        mapped = "-" if math.isnan(found.mapped(k)) else f"{found.mapped(k):,.1f}"
        rows.append((_name(found, k), mapped, value, half, f"{low} to {high}"))
    return page.table(("Class", "On the map, ha", "Estimated, ha", "± 1.96 SE", "95% interval, ha"), rows)


def _accuracy_table(found: Assessment, present: list[int]) -> str:
    accuracy = found.accuracy
    rows = [
        (
            _name(found, k),
            f"{accuracy.counts[k].sum():,}",
            f"{accuracy.counts[:, k].sum():,}",
            *(_cell(estimates[k]) for estimates in (accuracy.users, accuracy.producers, accuracy.f1)),
        )
        for k in present
    ]
    titles = ("Class", "Points, map", "Points, reference", "User's accuracy, %", "Producer's accuracy, %", "F1, %")
    total = ("Overall accuracy", "", f"{accuracy.counts.sum():,}", _cell(accuracy.overall), "", "")
    return page.table(titles, rows, total)


def _cell(estimates: Estimates) -> str:
    """Estimate, standard error and interval in percent."""
    value, error, low, high = (
        100 * float(part) for part in (estimates.value, estimates.error, estimates.low, estimates.high)
    )
    if np.isnan(value):
        return "-"
    return f"{value:.1f}" if np.isnan(low) else f"{value:.1f} (SE {error:.1f}; {low:.1f} to {high:.1f})"


def _matrix(found: Assessment, present: list[int], *, counts: bool) -> str:
    values = found.accuracy.counts if counts else 100 * found.accuracy.matrix
    form = "{:,.0f}".format if counts else "{:.2f}".format
    rows = [
        (_name(found, k), *(form(values[k, j]) if values[k, j] else "" for j in present), form(values[k].sum()))
        for k in present
    ]
    total = ("Sum", *(form(values[:, j].sum()) for j in present), form(values.sum()))
    return page.table(("Map", *(page.text(found.classes[j].name) for j in present), "Sum"), rows, total)


def _strata(found: Assessment) -> str:
    if found.design is None:
        return ""
    total = found.design.total
    rows = [
        (page.text(s.name), f"{s.cells:,}", f"{s.hectares:,.1f}", f"{s.hectares / total:.2%}", f"{s.points:,}")
        for s in found.design.strata
    ]
    return page.table(("Stratum", "Cells", "Hectares", "Weight", "Points drawn"), rows)


def _facts(found: Assessment) -> dict[str, Any]:
    design = found.design
    if design is None:
        return {}
    return {
        "design": design.kind,
        "strata": design.strata_from,
        "allocation": design.allocation,
        "seed": design.seed,
        "smallest distance": f"{design.min_distance:g} m",
        "sampled map": design.map,
        "digest of the map": design.digest,
        "points without an answer": found.missing,
    }


def _sources() -> str:
    return (
        "<p class='muted'>Olofsson et al. 2014, Good practices for estimating area and assessing accuracy of land "
        "change, Remote Sensing of Environment 148. Stehman 2014, Estimating area and map accuracy for stratified "
        "random sampling when the strata are different from the map classes, International Journal of Remote Sensing "
        "35.</p>"
    )

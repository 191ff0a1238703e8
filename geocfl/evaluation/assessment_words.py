"""What an assessment says in words: notes on its numbers, and a paragraph for a methods section."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from geocfl.evaluation.assessment import Assessment

FEW_POINTS = 5
"""Points of a class below which its numbers are called rough."""
UNIT = (
    "The unit is the cell of the map. Its reference is the class of its window, so an area is the area of cells whose "
    "window has the class."
)


def notes_of(found: Assessment) -> list[str]:
    """What a reader of the numbers has to know, one sentence or two each."""
    design, counts = found.design, found.accuracy.counts
    if design is None:
        return [
            "The points have no design, so these are the accuracies of these points, not of the map: no areas and no "
            "intervals follow from them."
        ]
    notes = [UNIT]
    if found.missing:
        notes.append(
            f"{found.missing:,} of {len(design.cells):,} points have no answer; the others stand for them, as "
            "if chance had chosen them."
        )
    if found.accuracy.sampled < 1 - 1e-9:
        left = design.total - found.hectares
        notes.append(
            f"Strata of {left:,.1f} ha ({1 - found.accuracy.sampled:.1%}) have no answered point: all numbers are for "
            "the rest."
        )
    if design.left_out > 0:
        notes.append(f"{design.left_out:,.1f} ha of the map have no class or are in no stratum: they are not included.")
    if found.reread:
        notes.append(f"The classes were read again at the points, since the sample was drawn from {design.map}.")
    if design.kind == "systematic":
        notes.append("Errors are those of a simple random sample, which a systematic one seldom exceeds.")
    if design.min_distance:
        notes.append(
            f"Points are at least {design.min_distance:g} m apart, so not all cells had the same probability; the "
            "estimates neglect that."
        )
    points = counts.sum(axis=0)
    rare = [c.name for c, n in zip(found.classes, points.tolist(), strict=True) if 0 < n < FEW_POINTS]
    if rare:
        notes.append(f"Fewer than {FEW_POINTS} points have the reference {_listed(rare)}: its numbers are rough.")
    return notes


def methods_paragraph(found: Assessment) -> str:
    """How the numbers were obtained, with the sources of the formulas."""
    design, accuracy = found.design, found.accuracy
    n = int(accuracy.counts.sum())
    if design is None:
        return (
            f"The map was compared with {n:,} reference points that are no probability sample. The map is right at "
            f"{100 * float(accuracy.overall.value):.1f}% of them; this is no estimate of the accuracy of the map."
        )
    drawn = {
        "stratified": f"a stratified random sample of {len(design.cells):,} cells ({_strata(found)}; "
        f"allocation: {design.allocation})",
        "simple": f"a simple random sample of {len(design.cells):,} cells",
        "systematic": f"a systematic sample of {len(design.cells):,} cells on a square grid with a random start",
    }[design.kind]
    estimators = {
        "classes": "stratified estimators (Olofsson et al. 2014)"
        if design.kind == "stratified"
        else "post-stratified estimators by map class (Olofsson et al. 2014)",
        "strata": "ratio estimators for strata that differ from the map's classes (Stehman 2014)",
        "map": "ratio estimators (Stehman 2014)",
    }[found.strata]
    answered = f" Reference classes were obtained for {n:,} of them." if found.missing else ""
    overall = accuracy.overall
    return (
        f"The accuracy of the map was assessed with {drawn}, drawn without replacement by geocfl (seed {design.seed})."
        f"{answered} The unit of assessment is the cell; the reference is the class of its window. Accuracies "
        f"and areas were estimated with {estimators} with the correction for finite populations; 95% intervals are "
        "Wilson's score intervals for the effective sample size, after one more point per stratum that is divided "
        f"among the classes. The overall accuracy is {100 * float(overall.value):.1f}% (standard error "
        f"{100 * float(overall.error):.1f}%, 95% interval {100 * float(overall.low):.1f}% to "
        f"{100 * float(overall.high):.1f}%), for {found.hectares:,.0f} ha."
    )


def _strata(found: Assessment) -> str:
    design = found.design
    if design is None or design.strata_from == "classes":
        return "strata: the classes of the map"
    return f"strata: {len(design.strata)} of {design.strata_from}"


def _listed(names: list[str]) -> str:
    return names[0] if len(names) == 1 else f"{', '.join(names[:-1])} and {names[-1]}"

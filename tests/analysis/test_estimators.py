"""Estimators: the published worked examples, an independent implementation, and coverage of the intervals."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from geocfl.analysis.allocation import allocate, sample_size
from geocfl.analysis.estimators import Accuracy, Population, Z, estimate_accuracy, post_strata

OLOFSSON = np.array([[66, 0, 5, 4], [0, 55, 8, 12], [1, 0, 153, 11], [2, 1, 9, 313]])
"""Table 8 of Olofsson et al. 2014: deforestation, forest gain, stable forest, stable non-forest."""
PIXELS = np.array([200_000, 150_000, 3_200_000, 6_450_000.0])
HECTARES_PER_PIXEL = 0.09


def points_of(counts: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Map and reference classes of the points of a matrix."""
    mapped, reference = np.nonzero(counts)
    each = counts[mapped, reference]
    return np.repeat(mapped, each), np.repeat(reference, each)


def letters(text: str) -> np.ndarray:
    return np.array(["ABCD".index(letter) for letter in text])


@pytest.fixture(scope="module")
def olofsson() -> Accuracy:
    mapped, reference = points_of(OLOFSSON)
    return estimate_accuracy(Population(PIXELS, np.full(4, np.inf)), mapped, mapped, reference, 4)


@pytest.fixture(scope="module")
def stehman() -> Accuracy:
    """The numerical example of Stehman 2014: four strata of 10 points."""
    strata = letters("A" * 10 + "B" * 10 + "C" * 10 + "D" * 10)
    mapped = letters("A" * 7 + "BBB" + "A" + "B" * 11 + "C" * 6 + "BB" + "D" * 10)
    reference = letters("A" * 5 + "CBABCA" + "B" * 5 + "AABB" + "C" * 5 + "DDBBA" + "D" * 7 + "CCB")
    cells = np.array([40_000, 30_000, 20_000, 10_000.0])
    return estimate_accuracy(Population(cells, cells), strata, mapped, reference, 4)


def test_olofsson_example_accuracies(olofsson: Accuracy) -> None:
    assert (olofsson.counts == OLOFSSON).all()
    assert round(float(olofsson.overall.value), 2) == 0.95
    assert round(Z * float(olofsson.overall.error), 2) == 0.02
    assert olofsson.users.value.round(2).tolist() == [0.88, 0.73, 0.93, 0.96]
    assert (Z * olofsson.users.error).round(2).tolist() == [0.07, 0.10, 0.04, 0.02]
    assert olofsson.producers.value.round(2).tolist() == [0.75, 0.85, 0.93, 0.96]
    assert (Z * olofsson.producers.error).round(2).tolist() == [0.21, 0.25, 0.03, 0.02]


def test_olofsson_example_matrix_and_areas(olofsson: Accuracy) -> None:
    """Table 9, whose cells have four digits, and the areas on page 54."""
    printed = [
        [0.0176, 0, 0.0013, 0.0011],
        [0, 0.0110, 0.0016, 0.0024],
        [0.0019, 0, 0.2967, 0.0213],
        [0.0040, 0.0020, 0.0179, 0.6212],
    ]
    assert np.abs(olofsson.matrix - printed).max() <= 0.00006
    pixels = PIXELS.sum() * olofsson.area.value
    half = Z * PIXELS.sum() * olofsson.area.error
    assert round(float(pixels[0])) == 235_086
    assert round(float(half[0])) == pytest.approx(68_418, abs=1)
    assert (pixels * HECTARES_PER_PIXEL).round().tolist() == [21_158, 11_686, 285_770, 581_386]
    assert (half * HECTARES_PER_PIXEL).round().tolist() == pytest.approx([6_158, 3_756, 15_510, 16_282], abs=1)


def test_olofsson_example_sample_size() -> None:
    """Their section 5.1.1: 641 points for a standard error of 0.01, and the allocations of Table 7."""
    weights = PIXELS / PIXELS.sum()
    expected = np.array([0.7, 0.6, 0.9, 0.95])
    assert sample_size(weights, expected, 0.01, PIXELS.sum()) == 641
    cells = PIXELS.astype(np.int64)
    assert allocate(640, np.ones(4), cells).tolist() == [160] * 4
    assert allocate(640, weights, cells, 75).tolist() == pytest.approx([75, 75, 165, 325], abs=3)
    assert allocate(640, weights, cells).tolist() == pytest.approx([13, 10, 205, 412], abs=1)


def test_stehman_example(stehman: Accuracy) -> None:
    """Pages 4932 to 4936; the last standard error is printed as 0.114, computed there from rounded intermediates."""
    assert stehman.area.value[[0, 2]].round(2).tolist() == [0.35, 0.20]
    assert round(float(stehman.overall.value), 2) == 0.63
    assert round(float(stehman.users.value[1]), 3) == 0.574
    assert round(float(stehman.producers.value[1]), 3) == 0.794
    assert round(float(stehman.matrix[1, 2]), 2) == 0.08
    assert stehman.area.error[[0, 2]].round(3).tolist() == [0.082, 0.064]
    assert round(float(stehman.overall.error), 3) == 0.085
    assert round(float(stehman.users.error[1]), 3) == 0.125
    assert float(stehman.producers.error[1]) == pytest.approx(0.1165479, abs=1e-6)
    assert float(stehman.overall.error) == pytest.approx(0.08464219, abs=1e-7)


def formulas(areas: np.ndarray, counts: np.ndarray) -> dict[str, np.ndarray]:
    """Olofsson et al. 2014, equations 4 to 11, as they are printed; every class has two points at least."""
    weights = areas / areas.sum()
    rows = counts.sum(axis=1)
    shares = weights[:, None] * counts / rows[:, None]
    columns = shares.sum(axis=0)
    producers = np.diag(shares) / columns
    total = areas.sum() * columns
    conditional = counts / rows[:, None]
    spread = conditional * (1 - conditional) / (rows - 1)[:, None]
    own = areas**2 * (1 - producers) ** 2 * np.diag(spread)
    others = np.array([sum(areas[i] ** 2 * spread[i, j] for i in range(len(rows)) if i != j) for j in range(len(rows))])
    return {
        "overall": np.sqrt((weights**2 * np.diag(spread)).sum()),
        "users": np.sqrt(np.diag(spread)),
        "producers": np.sqrt((own + producers**2 * others) / total**2),
        "area": np.sqrt(((weights**2)[:, None] * spread).sum(axis=0)),
    }


@given(st.integers(2, 5), st.integers(0, 2**32 - 1))
def test_standard_errors_are_those_of_the_printed_formulas(classes: int, seed: int) -> None:
    rng = np.random.default_rng(seed)
    counts = rng.integers(0, 20, (classes, classes)) + 2 * np.eye(classes, dtype=int)
    areas = rng.uniform(1, 100, classes)
    mapped, reference = points_of(counts)
    found = estimate_accuracy(Population(areas, np.full(classes, np.inf)), mapped, mapped, reference, classes)
    wanted = formulas(areas, counts)
    for name in wanted:
        np.testing.assert_allclose(getattr(found, name).error, wanted[name], rtol=1e-9, atol=1e-12)
    np.testing.assert_allclose(found.matrix.sum(axis=1), areas / areas.sum())
    np.testing.assert_allclose(found.f1.value, 2 / (1 / found.users.value + 1 / found.producers.value))


def by_hand(
    areas: np.ndarray, cells: np.ndarray, strata: np.ndarray, top: np.ndarray, bottom: np.ndarray, size: np.ndarray
) -> tuple[float, float]:
    """A combined ratio estimate and its standard error, point by point; cells have sizes."""
    numerator = denominator = variance = 0.0
    share = areas / areas.sum()
    for h in range(len(areas)):
        mine = strata == h
        numerator += share[h] * (size[mine] * top[mine]).sum() / size[mine].sum()
        denominator += share[h] * (size[mine] * bottom[mine]).sum() / size[mine].sum()
    ratio = numerator / denominator
    for h in range(len(areas)):
        mine = strata == h
        n = mine.sum()
        d = top[mine] - ratio * bottom[mine]
        e = size[mine] * (d - (size[mine] * d).sum() / size[mine].sum()) / size[mine].mean()
        variance += share[h] ** 2 * (1 - n / cells[h]) * (e @ e) / (n - 1) / n
    return ratio, float(np.sqrt(variance)) / denominator


@given(st.integers(1, 4), st.integers(2, 4), st.integers(0, 2**32 - 1))
def test_ratios_agree_with_an_estimate_point_by_point(strata: int, classes: int, seed: int) -> None:
    rng = np.random.default_rng(seed)
    of = np.repeat(np.arange(strata), rng.integers(2, 12, strata))
    mapped, reference = rng.integers(0, classes, (2, len(of)))
    areas, size = rng.uniform(1, 9, strata), rng.uniform(0.5, 2, len(of))
    cells = np.bincount(of) + rng.integers(0, 50, strata).astype(float)
    found = estimate_accuracy(Population(areas, cells), of, mapped, reference, classes, size)
    value, error = by_hand(areas, cells, of, (mapped == reference) * 1.0, np.ones(len(of)), size)
    assert (float(found.overall.value), float(found.overall.error)) == pytest.approx((value, error))
    for k in range(classes):
        on_map, true = (mapped == k) * 1.0, (reference == k) * 1.0
        for name, top, bottom in (
            ("users", on_map * true, on_map),
            ("producers", on_map * true, true),
            ("f1", 2 * on_map * true, on_map + true),
            ("area", true, np.ones(len(of))),
        ):
            estimates = getattr(found, name)[k]
            if not bottom.any():
                assert np.isnan(estimates.value)
                assert np.isnan(estimates.low)
                continue
            wanted = by_hand(areas, cells, of, top, bottom, size)
            assert (float(estimates.value), float(estimates.error)) == pytest.approx(wanted, abs=1e-12)
            assert 0 <= estimates.low <= estimates.value <= estimates.high <= 1


@pytest.mark.parametrize("right", [True, False])
def test_a_sample_all_right_or_all_wrong_has_an_interval(right: bool) -> None:
    mapped = np.repeat([0, 1], 50)
    reference = mapped if right else 1 - mapped
    found = estimate_accuracy(Population(np.array([1.0, 3]), np.full(2, 1e6)), mapped, mapped, reference, 2)
    assert found.overall.value == right
    assert found.overall.error == 0
    assert 0.02 < float(found.overall.high - found.overall.low) < 0.08
    assert np.isfinite([found.users.low, found.users.high, found.area.low, found.area.high]).all()


def test_a_whole_stratum_has_no_error() -> None:
    mapped = np.repeat([0, 1], 3)
    reference = np.array([0, 0, 1, 1, 1, 0])
    found = estimate_accuracy(Population(np.array([3.0, 3]), np.array([3.0, 3])), mapped, mapped, reference, 2)
    assert found.overall.error == 0
    assert (found.overall.low, found.overall.high) == (found.overall.value, found.overall.value)


def test_a_stratum_of_one_point_adds_to_the_error() -> None:
    mapped = np.array([0] * 20 + [1])
    reference = np.array([0] * 18 + [1, 1, 1])
    population = Population(np.array([80.0, 20]), np.full(2, np.inf))
    found = estimate_accuracy(population, mapped, mapped, reference, 2)
    alone = estimate_accuracy(
        Population(np.array([80.0]), np.array([np.inf])), mapped[:20], mapped[:20], reference[:20], 2
    )
    assert float(found.overall.value) == pytest.approx(0.8 * 0.9 + 0.2)
    assert float(found.overall.error) > 0.8 * float(alone.overall.error)


def test_a_stratum_without_points_is_left_out() -> None:
    mapped, reference = points_of(OLOFSSON[:3])
    population = Population(PIXELS, np.full(4, np.inf))
    found = estimate_accuracy(population, mapped, mapped, reference, 4)
    assert found.sampled == pytest.approx(0.355)
    assert found.matrix.sum() == pytest.approx(1)
    assert np.isnan(found.users.value[3])


def test_rare_classes_share_a_post_stratum() -> None:
    mapped = np.array([0] * 10 + [1] * 5 + [2])
    population = Population(np.array([50.0, 30, 15, 5]), np.array([50.0, 30, 15, 5]))
    merged, strata = post_strata(population, mapped)
    assert merged.areas.tolist() == [50, 50]  # the third and fourth, and the smallest of the others
    assert np.bincount(strata).tolist() == [6, 10]
    enough, strata = post_strata(population, np.array([0, 0, 1, 1, 2, 2, 3, 3]))
    assert enough.areas.tolist() == [50, 30, 15, 5]
    assert strata.tolist() == [0, 0, 1, 1, 2, 2, 3, 3]


@given(
    st.lists(st.integers(1, 400), min_size=1, max_size=8),
    st.integers(1, 300),
    st.integers(1, 60),
    st.integers(0, 2**32 - 1),
)
def test_allocations_add_up_and_fit(cells: list[int], size: int, fewest: int, seed: int) -> None:
    shares = np.random.default_rng(seed).uniform(0, 1, len(cells)) + 1e-3
    of, lowest = np.array(cells), np.minimum(fewest, cells)
    if min(size, sum(cells)) < lowest.sum():
        with pytest.raises(ValueError, match="too few"):
            allocate(size, shares, of, fewest)
        return
    points = allocate(size, shares, of, fewest)
    assert points.sum() == min(size, sum(cells))
    assert (lowest <= points).all()
    assert (points <= of).all()


ERRORS = np.array(
    [[0.75, 0.05, 0.10, 0.10], [0.02, 0.85, 0.05, 0.08], [0.01, 0.03, 0.92, 0.04], [0.005, 0.01, 0.03, 0.955]]
)
"""Probability of each reference class (column) where the map has a class (row)."""
AREAS = np.array([0.02, 0.08, 0.30, 0.60])
"""Shares of the map; the first class is rare."""


def coverage(design: str, sizes: list[int], rounds: int) -> dict[str, np.ndarray]:
    """How often the intervals contain the truth of maps of 300 x 300 cells, whose classes lie in blocks of 5 x 5."""
    rng = np.random.default_rng(1)
    side = 300
    blocks = rng.permutation(np.repeat(np.arange(4), np.rint(AREAS * (side // 5) ** 2).astype(int)))
    mapped = np.kron(blocks.reshape(side // 5, -1), np.ones((5, 5), int)).ravel()
    members = [np.flatnonzero(mapped == k) for k in range(4)]
    areas = np.bincount(mapped).astype(float)
    names = ("overall", "users", "producers", "f1", "area")
    hits = dict.fromkeys(names, 0.0)
    known = dict.fromkeys(names, 0.0)
    for index in range(rounds):
        if index % 30 == 0:
            truth = (rng.random(side**2)[:, None] > np.cumsum(ERRORS, axis=1)[mapped]).sum(axis=1)
            true = estimate_accuracy(Population(areas, areas), mapped, mapped, truth, 4)
        if design == "stratified":
            chosen = np.concatenate(
                [rng.choice(cells, n, replace=False) for cells, n in zip(members, sizes, strict=True)]
            )
        elif design == "simple":
            chosen = rng.choice(side**2, sum(sizes), replace=False)
        else:
            step = side / np.sqrt(sum(sizes))
            rows, columns = (np.floor(np.arange(rng.uniform(0, step), side, step)).astype(int) for _ in range(2))
            chosen = (rows[:, None] * side + columns).ravel()
        population, strata = Population(areas, areas), mapped[chosen]
        if design != "stratified":
            population, strata = post_strata(population, strata)
        found = estimate_accuracy(population, strata, mapped[chosen], truth[chosen], 4)
        for name in names:
            estimate, wanted = getattr(found, name), getattr(true, name).value
            known[name] = known[name] + np.isfinite(estimate.value)
            hits[name] = hits[name] + ((estimate.low <= wanted) & (wanted <= estimate.high))
    return {name: np.asarray(hits[name] / known[name]) for name in names}


@pytest.mark.parametrize("design", ["stratified", "simple", "systematic"])
def test_intervals_cover_the_truth_at_about_the_stated_rate(design: str) -> None:
    covered = coverage(design, [50, 60, 170, 320], 150)
    assert 0.91 <= covered["overall"] <= 0.99
    for name in ("users", "producers", "f1", "area"):
        assert (covered[name] >= 0.89).all(), name
    assert np.mean([covered[name].mean() for name in ("users", "producers", "f1", "area")]) == pytest.approx(
        0.955, abs=0.025
    )


@pytest.mark.slow
@pytest.mark.parametrize("design", ["stratified", "simple", "systematic"])
def test_coverage_of_many_samples(design: str) -> None:
    covered = coverage(design, [50, 60, 170, 320], 2000)
    everything = np.concatenate([np.ravel(rates) for rates in covered.values()])
    assert 0.93 <= covered["overall"] <= 0.97
    assert ((covered["area"] >= 0.93) & (covered["area"] <= 0.97)).all()
    assert ((everything >= 0.925) & (everything <= 0.975)).all()

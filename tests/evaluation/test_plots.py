from __future__ import annotations

from pathlib import Path

import matplotlib as mpl
import numpy as np
import pytest
import torch
from PIL import Image

from geocfl.core.legend import EUROSAT, Legend
from geocfl.core.radiometry import Scaling
from geocfl.data.patches import Patches
from geocfl.evaluation import paper
from geocfl.evaluation.metrics import compute_metrics, metrics_at
from geocfl.evaluation.patch_plots import confident_errors, errors_figure, samples_figure, true_color
from geocfl.evaluation.plots import STYLE, per_class_figure, reliability_figure, save_figure

LEGEND = Legend.from_folders(["A", "B", "C"])


def one_colored(colors: list[tuple[int, int, int]], labels: list[int]) -> Patches:
    """Patches of 8 x 8 px in percent of reflectance, each of one color."""
    pixels = np.broadcast_to(np.array(colors, np.uint8)[:, :, None, None], (len(colors), 3, 8, 8))
    names = tuple(f"X/patch_{index}.png" for index in range(len(colors)))
    bands = ("B04", "B03", "B02")
    return Patches(pixels, np.array(labels, np.int64), names, bands, Scaling(100), LEGEND, "made up")


def test_true_color_takes_the_bands_by_name_and_stretches_them():
    reflectance = np.zeros((1, 4, 2, 2), np.float32)
    reflectance[0, :, 0, 0] = 0.1, 0.2, 0.9, 0.3
    reflectance[0, 0, 1, 1] = np.nan
    shown = true_color(reflectance, ("B02", "B03", "B08", "B04"), white=1.0)
    assert shown.shape == (1, 2, 2, 3)
    assert shown[0, 0, 0].tolist() == pytest.approx([1, (2 / 3) ** 0.8, (1 / 3) ** 0.8]), "white is 0.3 at most"
    assert shown[0, 1, 1].tolist() == [0, 0, 0]
    assert true_color(reflectance, ("B02", "B03", "B08", "B04"), white=0.2)[0, 0, 0].tolist() == pytest.approx(
        [1, 1, 0.5**0.8]
    )
    gray = true_color(reflectance, ("B11", "B12", "B08", "B04"), white=0.2)
    assert gray[0, 0, 0].tolist() == pytest.approx([0.5**0.8] * 3)


def test_errors_are_the_most_confident_ones_and_few_of_a_kind():
    confidence = np.array([0.9, 0.6, 0.95, 0.7, 0.8, 0.5, 0.99])
    labels = np.array([0, 0, 0, 0, 0, 2, 1])
    probabilities = np.zeros((7, 3))
    probabilities[:, 1] = confidence  # all are taken for class 1, the last one rightly
    assert confident_errors(probabilities, labels).tolist() == [2, 0, 4, 5]
    assert confident_errors(probabilities[6:], labels[6:]).tolist() == []


def test_no_more_errors_than_fit():
    labels = np.arange(100) % 10
    probabilities = np.eye(10)[(labels + 1 + np.arange(100) // 30) % 10]
    assert len(confident_errors(probabilities, labels)) == 24


def test_an_error_is_shown_with_both_classes_confidence_and_file():
    patches = one_colored([(10, 20, 30), (40, 0, 0), (0, 40, 0)], [0, 1, 1])
    probabilities = np.array([[0.1, 0.2, 0.7], [0.8, 0.1, 0.1]])
    figure = errors_figure(patches, np.array([2, 0]), probabilities, LEGEND)
    assert figure is not None
    (axes,) = figure.axes
    shown = [text.get_text() for text in axes.texts[1:]]
    assert shown == ["B", "C", "confidence 70.0%", "patch_2.png"], "the other patch is no error"
    assert np.asarray(axes.images[0].get_array())[0, 0].tolist() == [0, 1, 0]


def test_no_error_no_figure():
    patches = one_colored([(10, 20, 30)], [0])
    assert errors_figure(patches, np.array([0]), np.array([[0.6, 0.2, 0.2]]), LEGEND) is None


def test_samples_show_the_patches_of_the_class_and_of_no_other_split(tmp_path):
    red, green, blue = (40, 0, 0), (0, 40, 0), (0, 0, 40)
    patches = one_colored([red, red, green, blue], [0, 0, 1, 1])
    with mpl.rc_context(STYLE):
        figure = samples_figure(patches, np.array([0, 1, 2]), LEGEND)
        save_figure(figure, tmp_path, "samples")
    shown = [tuple(np.asarray(image.get_array())[0, 0]) for image in figure.axes[0].images]
    assert shown == [(1, 0, 0), (1, 0, 0), (0, 1, 0)]
    assert [text.get_text() for text in figure.axes[0].texts] == ["A", "B", "C", "no patches"]
    with Image.open(tmp_path / "samples.png") as image:
        counts = {color: count for count, color in image.convert("RGB").getcolors(1 << 20)}
    assert counts[255, 0, 0] == 2 * counts[0, 255, 0] > 30_000, "nothing lies over the patches"
    assert (0, 0, 255) not in counts


def test_samples_are_the_same_each_time_and_no_more_than_four():
    patches = one_colored([(index, 0, 0) for index in range(30)], [0] * 30)
    first, again = (samples_figure(patches, np.arange(30), LEGEND) for _ in range(2))
    chosen = [[float(image.get_array()[0, 0, 0]) for image in figure.axes[0].images] for figure in (first, again)]
    assert chosen[0] == chosen[1]
    assert len(set(chosen[0])) == 4


@pytest.mark.parametrize("legend", [EUROSAT, LEGEND])
def test_the_figures_of_the_paper_stand_beside_those_of_its_classes_only(legend):
    labels = torch.arange(len(legend))
    (axes,) = per_class_figure(metrics_at(torch.eye(len(legend)), labels, legend), legend).axes
    marked = [line.get_xdata().tolist() for line in axes.lines if len(line.get_xdata())]
    expected = [list(row) for row in (paper.ENTROPY_ACCURACY, paper.ENTROPY_F1, paper.FOCAL_ACCURACY)]
    assert marked == (expected if legend is EUROSAT else [])


def test_the_paper_agrees_with_itself():
    assert pytest.approx(12_941 / 13_500) == paper.FOCAL_TOTAL
    weighted = np.average(paper.ENTROPY_ACCURACY, weights=paper.LABEL_COUNT)
    assert weighted == pytest.approx(paper.ENTROPY_TOTAL, abs=5e-5)
    assert len(paper.ENTROPY_F1) == len(EUROSAT)


def test_reliability_before_and_after():
    rng = torch.Generator().manual_seed(0)
    result = compute_metrics(3 * torch.randn(50, 3, generator=rng), torch.arange(50) % 3, LEGEND, 2.0)
    upper = reliability_figure(result).axes[:2]
    for axes, ece, part in zip(upper, (result["uncalibrated"]["ece"], result["ece"]), ("Before", "After"), strict=True):
        assert axes.get_title(loc="left") + axes.get_title() == f"{part} temperature scaling: ECE {ece:.4f}"
    heights = [[bar.get_height() for bar in axes.patches] for axes in upper]
    for drawn, part in zip(heights, (result["uncalibrated"], result), strict=True):
        assert drawn == [b["accuracy"] for b in part["reliability"]]
    del result["uncalibrated"]
    assert len(reliability_figure(result).axes) == 2, "one panel, and its counts"


def test_the_same_figure_has_the_same_bytes(tmp_path: Path):
    patches = one_colored([(10, 20, 30), (30, 0, 0)], [0, 1])
    for folder in ("first", "second"):
        with mpl.rc_context(STYLE):
            figure = errors_figure(patches, np.arange(2), np.array([[0.1, 0.9, 0], [0.6, 0.4, 0]]), LEGEND)
            assert figure is not None
            save_figure(figure, tmp_path / folder, "gallery")
    for suffix in ("png", "svg"):
        assert (tmp_path / f"first/gallery.{suffix}").read_bytes() == (
            tmp_path / f"second/gallery.{suffix}"
        ).read_bytes()

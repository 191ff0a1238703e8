from __future__ import annotations

import numpy as np
import pytest
import torch

from geocfl.core.legend import Legend
from geocfl.evaluation.calibration import MOST_DAMPING, fit_correlation, fit_damping, fit_temperature, reliability
from geocfl.evaluation.metrics import compute_metrics, format_metrics, metrics_at

LEGEND = Legend.from_folders(["A", "B", "C"])


def logits_of(probabilities: list[list[float]]) -> torch.Tensor:
    return torch.tensor(probabilities).log()


def test_counts_accuracy_and_f1_by_hand():
    # Predicted A, A, B, B, C; class C has one patch, which is taken for B.
    logits = logits_of([[0.8, 0.1, 0.1], [0.6, 0.2, 0.2], [0.1, 0.7, 0.2], [0.2, 0.5, 0.3], [0.1, 0.2, 0.7]])
    result = metrics_at(logits, torch.tensor([0, 1, 1, 2, 0]), LEGEND)
    assert result["confusion"] == [[1, 0, 1], [1, 1, 0], [0, 1, 0]]
    assert (result["n"], result["accuracy"]) == (5, pytest.approx(0.4))
    assert [row["accuracy"] for row in result["per_class"]] == pytest.approx([0.5, 0.5, 0])
    assert [row["f1"] for row in result["per_class"]] == pytest.approx([0.5, 0.5, 0])
    assert [row["precision"] for row in result["per_class"]] == pytest.approx([0.5, 0.5, 0])
    assert [(row["code"], row["name"], row["count"], row["correct"]) for row in result["per_class"]] == [
        (1, "A", 2, 1),
        (2, "B", 2, 1),
        (3, "C", 1, 0),
    ]
    assert result["macro_f1"] == pytest.approx(1 / 3)
    assert result["balanced_accuracy"] == pytest.approx((0.5 + 0.5 + 0) / 3)
    assert result["worst_class_recall"] == 0
    # Confidences .8 (right), .6 (wrong), .7 (right), .5 (wrong), .7 (wrong): the two of .7 share a bin.
    assert result["ece"] == pytest.approx((0.2 + 0.6 + 2 * 0.2 + 0.5) / 5)
    assert result["nll"] == pytest.approx(-np.mean(np.log([0.8, 0.2, 0.7, 0.3, 0.1])))
    brier = [0.04 + 0.01 + 0.01, 0.36 + 0.64 + 0.04, 0.01 + 0.09 + 0.04, 0.04 + 0.25 + 0.49, 0.81 + 0.04 + 0.49]
    assert result["brier"] == pytest.approx(np.mean(brier))


def test_absent_classes_count_as_0():
    result = metrics_at(logits_of([[0.9, 0.05, 0.05]]), torch.tensor([0]), LEGEND)
    assert result["macro_f1"] == pytest.approx(1 / 3)
    assert (result["balanced_accuracy"], result["worst_class_recall"]) == (1, 1), "no patches, no recall"
    assert result["per_class"][1] == {
        "code": 2,
        "name": "B",
        "count": 0,
        "correct": 0,
        "accuracy": 0.0,
        "precision": None,
        "f1": 0.0,
        "ece": 0.0,
    }


@pytest.mark.parametrize("temperature", [0.05, 1.0, 2.0])
def test_calibration_is_that_of_a_plain_loop(temperature):
    rng = np.random.default_rng(0)
    logits, labels = rng.normal(0, 4, (500, 3)).astype(np.float32), rng.integers(3, size=500)
    p = np.exp(logits.astype(np.float64) / temperature)
    p /= p.sum(1, keepdims=True)
    right = p.argmax(1) == labels
    ece = 0.0
    for k in range(15):
        inside = (p.max(1) >= k / 15) & ((p.max(1) < (k + 1) / 15) | (k == 14))
        if inside.any():
            ece += inside.mean() * abs(right[inside].mean() - p.max(1)[inside].mean())
    result = metrics_at(torch.from_numpy(logits), torch.from_numpy(labels), LEGEND, temperature)
    assert result["ece"] == pytest.approx(ece, abs=1e-7)
    assert result["nll"] == pytest.approx(-np.log(p[np.arange(500), labels]).mean(), rel=1e-5)
    assert result["brier"] == pytest.approx(((p - np.eye(3)[labels]) ** 2).sum(1).mean(), rel=1e-6)
    assert result["accuracy"] == right.mean(), "the temperature changes no class"
    recall = [right[labels == k].mean() for k in range(3)]
    assert result["balanced_accuracy"] == pytest.approx(np.mean(recall))
    assert result["worst_class_recall"] == pytest.approx(min(recall))


def test_brier_score_spans_0_to_2():
    certain = torch.tensor([[1000.0, 0, 0]])
    assert metrics_at(certain, torch.tensor([0]), LEGEND)["brier"] == pytest.approx(0)
    assert metrics_at(certain, torch.tensor([2]), LEGEND)["brier"] == pytest.approx(2)


def test_a_verdict_holds_both_sides_of_the_temperature():
    rng = torch.Generator().manual_seed(0)
    logits, labels = 5 * torch.randn(60, 3, generator=rng), torch.arange(60) % 3
    verdict = compute_metrics(logits, labels, LEGEND, 4.0)
    before = verdict.pop("uncalibrated")
    assert verdict == metrics_at(logits, labels, LEGEND, 4.0)
    assert sorted(before) == ["brier", "ece", "nll", "reliability"]
    assert before.items() <= metrics_at(logits, labels, LEGEND).items()
    assert before["nll"] > verdict["nll"], "random labels: the less confident, the better"


def test_certain_predictions_share_the_last_bin():
    logits = torch.tensor([[200.0, 0.0], [3.0, 0.0]])
    bins = reliability(logits, torch.tensor([0, 1]))
    assert [b["count"] for b in bins] == [0] * 14 + [2]
    assert bins[14]["accuracy"] == 0.5
    assert bins[14]["confidence"] == pytest.approx((1 + 1 / (1 + np.exp(-3))) / 2)
    assert bins[0] == {"confidence": 0.0, "accuracy": 0.0, "count": 0}


@pytest.mark.parametrize("temperature", [0.5, 1.0, 3.0])
def test_a_known_temperature_is_found_again(temperature):
    rng = torch.Generator().manual_seed(0)
    logits = 2 * torch.randn(20_000, 5, generator=rng)
    labels = torch.multinomial(logits.softmax(1), 1, generator=rng).squeeze(1)
    assert fit_temperature(temperature * logits, labels) == pytest.approx(temperature, rel=0.05)


@pytest.mark.parametrize("scale", [1, 10, 1000])
def test_separable_and_hopeless_logits_have_a_finite_temperature(scale):
    labels = torch.arange(30) % 3
    right = scale * torch.eye(3)[labels]
    for logits in (right, -right, torch.zeros(30, 3)):
        assert 0 < fit_temperature(logits, labels) < 21


def test_metrics_as_text():
    text = format_metrics(metrics_at(logits_of([[0.9, 0.05, 0.05], [0.1, 0.8, 0.1]]), torch.tensor([0, 2]), LEGEND))
    rows = [line.split() for line in text.splitlines()]
    assert rows[0] == ["code", "class", "correct", "patches", "accuracy", "95%", "interval", "F1", "ECE"]
    assert rows[2] == ["1", "A", "1", "1", "100.00%", "20.7-100.0", "1.0000", "0.1000"]
    assert rows[3] == ["2", "B", "0", "0", "0.00%", "-", "0.0000", "0.8000"]
    assert rows[4] == ["3", "C", "0", "1", "0.00%", "0.0-79.3", "0.0000", "0.0000"]
    assert "50.00%" in rows[5]
    assert "Balanced accuracy (mean of the classes' accuracies): 50.00%; lowest: 0.00%, C." in text


def test_text_of_calibration_says_before_and_after_only_where_both_are_known():
    logits, labels = logits_of([[0.6, 0.2, 0.2], [0.6, 0.3, 0.1]]), torch.tensor([0, 0])
    verdict = compute_metrics(logits, labels, LEGEND, 0.5)
    after = 0.36 / 0.44, 0.36 / 0.46  # squares of the probabilities, again summing to 1
    lines = format_metrics(verdict).splitlines()[-5:]
    assert lines[0].split() == ["temperature", "scaling", "before", "after"]
    assert lines[2].split()[-2:] == ["0.4000", f"{1 - np.mean(after):.4f}"]
    assert lines[3].split()[-2:] == [f"{-np.log(0.6):.4f}", f"{-np.log(after).mean():.4f}"]
    assert [line.split()[0] for line in lines[2:]] == ["Expected", "Negative", "Brier"]

    del verdict["uncalibrated"]
    text = format_metrics(verdict)
    assert "before" not in text
    assert text.endswith(f"Brier score (0..2) {verdict['brier']:.4f}")


def test_text_of_an_older_metrics_file():
    metrics = metrics_at(logits_of([[0.9, 0.05, 0.05]]), torch.tensor([0]), LEGEND)
    older = {key: value for key, value in metrics.items() if key not in ("balanced_accuracy", "brier")}
    text = format_metrics(older | {"uncalibrated": {"nll": 1.0}})
    assert "alanced" not in text
    assert "Brier" not in text
    rows = [line.split()[-2:] for line in text.splitlines()[-2:]]
    assert rows == [["-", "0.1000"], ["1.0000", "0.1054"]]


def test_the_confusion_matrix_is_that_of_torchmetrics():
    reference = pytest.importorskip("torchmetrics.functional.classification")
    rng = torch.Generator().manual_seed(0)
    logits, labels = torch.randn(200, 3, generator=rng), torch.randint(2, (200,), generator=rng)
    expected = reference.multiclass_confusion_matrix(logits, labels, num_classes=3)
    assert metrics_at(logits, labels, Legend.from_folders(["A", "B", "C"]))["confusion"] == expected.tolist()


@pytest.mark.parametrize("damping", [0.0, 0.4, 1.5])
def test_the_damping_is_recovered(damping):
    rng = torch.Generator().manual_seed(0)
    logits = 3 * torch.randn(40_000, 5, generator=rng)
    ratio = 1 + 3 * torch.rand(len(logits), generator=rng).square()
    labels = torch.distributions.Categorical(logits=logits / (1.3 * ratio[:, None] ** damping)).sample()
    temperature, found = fit_damping(logits, labels, ratio)
    assert temperature == pytest.approx(1.3, rel=0.05)
    assert found == pytest.approx(damping, abs=0.05)


def test_the_temperature_never_falls_with_novelty():
    rng = torch.Generator().manual_seed(0)
    logits = 3 * torch.randn(5_000, 3, generator=rng)
    ratio = 1 + torch.rand(len(logits), generator=rng)
    for sharper, expected in ((-1, 0.0), (9, MOST_DAMPING)):
        labels = torch.distributions.Categorical(logits=logits / ratio[:, None] ** sharper).sample()
        temperature, found = fit_damping(logits, labels, ratio)
        assert found == expected
        rest = logits / ratio[:, None] ** expected
        assert temperature == pytest.approx(fit_temperature(rest, labels), rel=1e-3)


@pytest.mark.parametrize("dates", [2, 4])
@pytest.mark.parametrize("correlation", [0.0, 0.4, 0.9, 1.0])
def test_the_correlation_of_errors_is_recovered(dates, correlation):
    """Two classes at -1 and 1 are seen with errors of variance 1: the log odds of each sight x are 2 x."""
    rng = torch.Generator().manual_seed(0)
    labels = torch.randint(2, (100_000,), generator=rng)
    common, own = torch.randn(len(labels), generator=rng), torch.randn(dates, len(labels), generator=rng)
    seen = 2 * labels - 1 + correlation**0.5 * common + (1 - correlation) ** 0.5 * own
    looks = torch.stack([torch.zeros_like(seen), 2 * seen], dim=2).log_softmax(2)
    assert fit_correlation(looks, labels) == pytest.approx(correlation, abs=0.03)


def test_the_correlation_is_between_0_and_1_and_1_where_no_date_errs():
    labels = torch.arange(300) % 3
    sure = (9.0 * torch.eye(3)[labels]).log_softmax(1)
    assert fit_correlation(torch.stack([sure, sure]), labels) == 1
    shy = (0.01 * torch.eye(3)[labels]).log_softmax(1)
    shy[0] = shy[1]  # of another class
    assert fit_correlation(torch.stack([shy, shy]), labels) == 0
    assert fit_correlation(torch.stack([sure, sure]), labels.roll(1)) == 1


def test_calibration_errors_of_classes_are_those_of_the_patches_called_so():
    logits = logits_of([[0.8, 0.1, 0.1], [0.8, 0.1, 0.1], [0.1, 0.6, 0.3], [0.2, 0.6, 0.2]])
    rows = metrics_at(logits, torch.tensor([0, 1, 1, 1]), LEGEND)["per_class"]
    assert [row["ece"] for row in rows] == pytest.approx([0.3, 0.4, 0.0])


def test_metrics_without_errors_of_classes_are_shown_without_them():
    metrics = metrics_at(logits_of([[0.9, 0.05, 0.05]]), torch.tensor([0]), LEGEND)
    for row in metrics["per_class"]:
        del row["ece"]
    assert "ECE" not in format_metrics(metrics)


def test_prediction_sets_have_their_metrics_and_a_sentence():
    logits, labels = logits_of([[0.8, 0.1, 0.1], [0.4, 0.5, 0.1]]), torch.tensor([0, 0])
    assert "sets" not in compute_metrics(logits, labels, LEGEND, 1.0)
    found = compute_metrics(logits, labels, LEGEND, 1.0, (0.5, 0.55, 0.95))
    assert found["sets"] == {"coverage": 0.5, "worst_class_coverage": 0.5, "mean_size": 2.0}
    assert "Prediction sets contain the class of 50.0% of the patches" in format_metrics(found)

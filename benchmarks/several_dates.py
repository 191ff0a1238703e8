"""Measures how sure several dates of one place may be together, on validation patches under several radiometries.

    python benchmarks/several_dates.py --data EuroSAT.zip --model runs/dense-first

The model must not have been trained on the validation patches of its split. Each patch is seen under two and under
three of the radiometries that training uses, inside random mosaics if the model is dense. Their probabilities are
combined in three ways: the geometric mean, the product, as if the dates erred independently, and what
``geocfl mosaic --overlap fuse`` does with the correlation fitted on the first two radiometries. The last line is
``correlation`` in the model's ``model.json``, as training fits it.
"""

from __future__ import annotations

import argparse

import torch

import geocfl
from geocfl.data.load import load_patches, load_split
from geocfl.evaluation.calibration import calibration_metrics, fit_correlation
from geocfl.training.correlation import DATES, log_probabilities
from geocfl.training.recipe import resolve

MOST = 3
"""Radiometries of a patch."""


def main() -> None:
    """Prints a table and the correlation."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", required=True, help="EuroSAT.zip, with the lists of the spatial split beside it")
    parser.add_argument("--model", required=True, help="a run whose validation patches are held out")
    parser.add_argument("--seed", type=int, default=1, help="that of the run")
    options = parser.parse_args()

    model = geocfl.load_model(options.model)
    patches = load_patches(options.data, model.bands, split=model.origin["split"])
    validation = load_split(patches, options.data, model.origin["split"], options.seed).validation
    assert model.origin["patches"]["validation"] == len(validation), "the model must not know its validation patches"
    augmentation = resolve(options.data, backbone=model.backbone, dense=model.feature_stride > 0).augmentation
    truth = torch.from_numpy(patches.labels[validation])
    dates = log_probabilities(model, model.network(), patches, validation, augmentation, options.seed, MOST)
    correlation = fit_correlation(dates[:DATES], truth)

    print("| radiometries | | accuracy | NLL | ECE |\n| ---: | --- | ---: | ---: | ---: |")

    def row(count: int, name: str, logs: torch.Tensor, labels: torch.Tensor) -> None:
        found = calibration_metrics(logs.float(), labels)
        accuracy = (logs.argmax(1) == labels).double().mean()
        print(f"| {count} | {name} | {accuracy:.2%} | {found['nll']:.4f} | {found['ece']:.4f} |")

    row(1, "single", dates.flatten(0, 1), truth.repeat(MOST))
    for count in range(DATES, MOST + 1):
        mean = dates[:count].mean(0)
        row(count, "geometric mean", mean, truth)
        row(count, "product", count * mean, truth)
        worth = count / (1 + (count - 1) * correlation)
        row(count, f"fused, worth {worth:.3f}", worth * mean, truth)
    for count in range(DATES, MOST + 1):
        print(f"\nfitted on {count} radiometries: {fit_correlation(dates[:count], truth):.4f}", end="")
    print(f"\n{correlation:.4f}")


if __name__ == "__main__":
    main()

"""Measures accuracy on windows cut by a straight edge, for two ways to fill the missing pixels.

    python benchmarks/no_data.py EuroSAT.zip [--model eurosat-rgb-lite0] [--every 4]

Each test patch of the spatial split loses the pixels beyond an edge at a random angle, so that a given share remains.
`mean` fills them with the model's band means, `mirrored` by mirroring, as maps do (`geocfl.core.windows`).
"""

from __future__ import annotations

import argparse

import numpy as np
import torch
from numpy.typing import NDArray

import geocfl
from geocfl.core.windows import fill
from geocfl.data.load import load_patches, load_split

SHARES = (1.0, 0.9, 0.75, 0.6, 0.5)


def beyond(share: float, side: int, rng: np.random.Generator) -> NDArray[np.bool_]:
    """(side, side) mask of the pixels beyond a random edge that leaves the given share."""
    y, x = np.indices((side, side)) - (side - 1) / 2
    angle = rng.uniform(0, 2 * np.pi)
    distance = np.cos(angle) * x + np.sin(angle) * y
    mask: NDArray[np.bool_] = distance > np.quantile(distance, share)
    return mask


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("data")
    parser.add_argument("--model", default="eurosat-rgb-lite0")
    parser.add_argument("--every", type=int, default=4, help="take every N-th of the test patches")
    options = parser.parse_args()
    model = geocfl.load_model(options.model)
    patches = load_patches(options.data, model.bands, split="spatial")
    indices = load_split(patches, options.data, "spatial", seed=0).test[:: options.every]
    network = model.network().to(memory_format=torch.channels_last)
    labels = patches.labels[indices]
    print(f"{len(indices)} patches, {model.name}")
    print("| share with data | mean | mirrored |\n| ---: | ---: | ---: |")
    for share in SHARES:
        rng, right = np.random.default_rng(0), {"mean": 0, "mirrored": 0}
        for start in range(0, len(indices), 64):
            windows = patches.reflectance(indices[start : start + 64])
            for window in windows:
                window[:, beyond(share, model.window, rng)] = np.nan
            for name, filled in (("mean", windows.copy()), ("mirrored", fill(windows))):
                with torch.inference_mode():
                    classes = network(torch.from_numpy(filled)).argmax(1).numpy()
                right[name] += int((classes == labels[start : start + 64]).sum())
        print(f"| {share:.0%} | " + " | ".join(f"{count / len(indices):.1%}" for count in right.values()) + " |")


if __name__ == "__main__":
    main()

"""What the parts of the default recipe are worth: validation accuracy with each of them changed.

    python benchmarks/recipes.py ../shared/data/eurosat/EuroSAT.zip recipes.json

Short trainings of one network on the spatial split; only its training and validation patches are touched. A finished
variant stands in the JSON file and is not trained again.
"""

from __future__ import annotations

import argparse
import json
import tempfile
from dataclasses import replace
from pathlib import Path

import torch

from geocfl.data.augmentation import Augmentation
from geocfl.data.patches import read_patches
from geocfl.data.splits import make_split
from geocfl.network import build_network, load_weights
from geocfl.training import describe_model, fit, resolve


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("data", type=Path, help="EuroSAT.zip, with the spatial split's lists beside it")
    parser.add_argument("results", type=Path, help="JSON file to keep")
    parser.add_argument("--epochs", type=int, default=3)
    parser.add_argument("--input-size", type=int, default=64)
    options = parser.parse_args()

    default = resolve(
        str(options.data), backbone="lite0", split="spatial", epochs=options.epochs, input_size=options.input_size
    )
    views = default.augmentation
    variants = {
        "default": default,
        "cross-entropy": replace(default, loss="ce"),
        "no radiometric augmentation": replace(default, augmentation=replace(views, surface=0, gain=0, haze=0)),
        "the paper's rotation and scale alone": replace(default, augmentation=Augmentation(rotation=180, zoom=0.2)),
        "the paper's constant 6e-4, Adam": replace(
            default, lr=6e-4, optimizer="adam", schedule="constant", weight_decay=0.0
        ),
    }
    results = json.loads(options.results.read_text()) if options.results.exists() else {}
    patches = read_patches(options.data, default.bands)
    split = make_split(patches, "spatial", default.seed, options.data.parent)
    for name, settings in variants.items():
        if name not in results:
            torch.manual_seed(settings.seed)
            network = build_network(settings.backbone, len(settings.bands), len(patches.legend), settings.dropout)
            load_weights(network, settings.backbone, settings.weights, settings.bands)
            module = describe_model(settings, patches, split, name).wrap(network).to(memory_format=torch.channels_last)
            with tempfile.TemporaryDirectory() as folder:
                history, _ = fit(module, patches, split, settings, Path(folder) / "checkpoint.pt")
            results[name] = {"epochs": settings.epochs, "input_px": settings.input_size, **history[-1]}
            options.results.write_text(json.dumps(results, indent=2) + "\n")
        print(f"{name:40s} {results[name]['validation_accuracy']:.2%}", flush=True)


if __name__ == "__main__":
    main()

"""Makes the stored features of a built-in model, from which ``geocfl train --add-classes`` knows its classes.

Of each class, 150 training patches of the model's split are chosen at random. A third of them is seen alone, and two
thirds inside random mosaics, turned and mirrored, each under a random atmosphere as in the training of dense models.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import numpy as np
import torch

import geocfl
from geocfl.data.load import load_patches, load_split
from geocfl.evaluation.logits import mosaic_features
from geocfl.models.bundle import DEFAULT_MODEL
from geocfl.models.reflectance import DenseReflectance
from geocfl.models.stored import write_stored
from geocfl.training.features import turned_patches, views_of
from geocfl.training.frozen import STORED
from geocfl.training.recipe import resolve


def main() -> None:
    """Writes the file into the model's folder."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", required=True, help="EuroSAT.zip, with the lists of the spatial split beside it")
    parser.add_argument("--model", default=DEFAULT_MODEL, help="a dense model")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--plain", action="store_true", help="leave the atmosphere of the patches as it is")
    options = parser.parse_args()

    model = geocfl.load_model(options.model)
    module, rng = model.network(), torch.Generator().manual_seed(options.seed)
    assert isinstance(module, DenseReflectance), "the model must be dense"
    patches = load_patches(options.data, model.bands, split=model.origin["split"])
    train = load_split(patches, options.data, model.origin["split"], options.seed).train
    shuffled = np.random.default_rng(options.seed).permutation(train)
    chosen = np.concatenate([shuffled[patches.labels[shuffled] == c][:STORED] for c in range(len(patches.legend))])
    views = views_of(module)
    recipe = resolve(options.data, dense=True)

    def change(images: torch.Tensor) -> torch.Tensor:
        return images if options.plain else recipe.augmentation.radiometry(images, patches.bands, rng)

    parts, labels = [], []
    for number, view in enumerate(views):
        rows = chosen[number :: len(views)]
        seen = turned_patches(patches, view)
        if view.inside:
            parts.append(mosaic_features(module, seen, rows, change=change, seed=options.seed))
        else:
            images = change(torch.from_numpy(seen.reflectance(rows)))
            with torch.inference_mode():
                parts.append(torch.cat([module.features(batch) for batch in images.split(16)]))
        labels.append(torch.from_numpy(patches.labels[rows]))
    write_stored(Path(model.path or ""), torch.cat(parts), torch.cat(labels))
    print(f"{len(chosen):,} patches in {Path(model.path or '')}")


if __name__ == "__main__":
    main()

"""EuroSAT's 13-band GeoTIFFs, read and downloaded by torchgeo's dataset classes."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from geocfl.core.legend import Legend
from geocfl.core.progress import Progress, counted, silent
from geocfl.core.radiometry import SENTINEL2
from geocfl.data.patches import Patches
from geocfl.errors import DataError, unknown_name

DEFAULT_ROOT = Path("data/eurosat")
"""Folder of ``data="eurosat"``, relative to the working directory."""


def is_torchgeo_root(path: Path) -> bool:
    """Whether a folder has the layout of torchgeo's EuroSAT."""
    return (path / "ds").is_dir() or (path / "EuroSATallBands.zip").is_file()


def read_torchgeo(
    root: Path, bands: tuple[str, ...], spatial: bool, download: bool = False, progress: Progress = silent
) -> Patches:
    """Reads all patches of torchgeo's `EuroSAT` (or `EuroSATSpatial`), one split after the other.

    Args:
        root: torchgeo's root folder, with ``ds/`` or ``EuroSATallBands.zip`` and the split lists.
        bands: Bands to read, in this order.
        spatial: Use `EuroSATSpatial`, which puts its split lists into `root`.
        download: Download missing files.
        progress: Called with the number of patches read so far.

    Raises:
        DataError: Data or lists are missing or cannot be downloaded.
    """
    from torchgeo.datasets import DatasetNotFoundError, EuroSAT, EuroSATSpatial

    dataset_class = EuroSATSpatial if spatial else EuroSAT
    unknown = [band for band in bands if band not in EuroSAT.all_band_names]
    if unknown:
        raise DataError(f"{root}: {unknown_name('band', unknown[0], EuroSAT.all_band_names)}")
    try:
        datasets = [dataset_class(str(root), split, bands, download=download) for split in dataset_class.splits]
    except DatasetNotFoundError as error:
        lists = ", ".join(dataset_class.split_filenames.values())
        raise DataError(
            f"{root}: torchgeo's EuroSAT is incomplete; it needs EuroSATallBands.zip and {lists}; "
            "to download them, pass `data='eurosat'`",
            page="how-to/training/",
        ) from error
    except Exception as error:  # urllib, zipfile and torchvision have different errors
        if not download:
            raise _unreadable(root, error) from error
        raise DataError(
            f"EuroSAT cannot be downloaded to {root} ({_line(error)}); "
            "without a network, pass the path of EuroSAT.zip or of a folder of patches as `data`",
            page="how-to/training/",
        ) from error
    samples = [sample for dataset in datasets for sample in dataset.samples]
    legend = Legend.from_folders(datasets[0].classes)
    pixels = np.empty((len(samples), len(bands), 64, 64), np.uint16)
    items = ((dataset, item) for dataset in datasets for item in range(len(dataset)))
    for index, (dataset, item) in enumerate(counted(items, progress, "reading patches", len(samples), "img")):
        try:
            pixels[index] = dataset[item]["image"].numpy()
        except (OSError, ValueError, IndexError) as error:  # not decodable, different size, fewer bands
            raise _unreadable(Path(samples[index][0]), error) from error
    return Patches(
        pixels=pixels,
        labels=np.array([label for _, label in samples], dtype=np.int64),
        names=tuple("/".join(Path(path).parts[-2:]) for path, _ in samples),
        bands=bands,
        scaling=SENTINEL2,
        legend=legend,
        source=f"torchgeo {dataset_class.__name__}",
    )


def _unreadable(path: Path, error: Exception) -> DataError:
    return DataError(f"{path}: cannot be read as torchgeo's EuroSAT ({_line(error)}); download it again")


def _line(error: Exception) -> str:
    """The first line of an error's message, or its type if it has none."""
    return next(iter(str(error).splitlines()), type(error).__name__)

"""The demonstration: a synthetic scene whose truth is known, mapped with the default bundled model."""

from __future__ import annotations

import contextlib
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import rasterio

from geocfl.core.legend import NODATA
from geocfl.demonstration.landscape import write_synthetic_scene
from geocfl.errors import OutputError
from geocfl.mapping import SceneMap, map_scene
from geocfl.models.bundle import DEFAULT_MODEL


@dataclass(frozen=True, repr=False)
class Demo:
    """A mapped demonstration scene.

    Attributes:
        scene: The synthetic scene.
        truth: Its land cover, one code a pixel.
        result: The map's products.
        cells: Cells that have a true class.
        agreement: Share of them, 0..1, that the map gives the same class.
        clear_cells: Those of them that no annotator would hesitate over.
        clear_agreement: Share of these, likewise.
    """

    scene: Path
    truth: Path
    result: SceneMap
    cells: int
    agreement: float
    clear_cells: int
    clear_agreement: float

    def __repr__(self) -> str:
        """One line: how far the map agrees with the truth."""
        clear = f"{self.clear_agreement:.1%} of {self.clear_cells} clear ones"
        return f"<Demo: map and truth agree in {self.agreement:.1%} of {self.cells} cells, {clear}; {self.scene}>"

    def _repr_html_(self) -> str:
        return self.result._repr_html_()


def demo(
    out: str | Path, *, model: str | Path = DEFAULT_MODEL, seed: int = 0, overwrite: bool = False, **options: Any
) -> Demo:
    """Writes a synthetic Sentinel-2-like scene and its truth, maps it at stride 64 and counts the agreement.

    Args:
        out: Folder for ``demo_scene.tif``, ``demo_truth.tif`` and the map.
        model: As in `geocfl.map_scene`.
        seed: Of the landscape.
        overwrite: Replace another scene or map in the way.
        **options: Further options of `geocfl.map_scene`, except ``stride``.

    Raises:
        GeocflError: The folder or the model cannot be used.
    """
    out = Path(out)
    scene, truth = out / "demo_scene.tif", out / "demo_truth.tif"
    partial = [path.with_name(f".{path.name}.partial") for path in (scene, truth)]
    try:
        out.mkdir(parents=True, exist_ok=True)
        synthetic = write_synthetic_scene(partial[0], partial[1], seed=seed)
        for path, fresh in zip((scene, truth), partial, strict=True):
            if path.exists() and not overwrite and path.read_bytes() != fresh.read_bytes():
                raise OutputError(
                    f"{path}: another file is in the way; pass --overwrite to replace it, or another --out"
                )
        for path, fresh in zip((scene, truth), partial, strict=True):
            fresh.replace(path)
    except (OSError, rasterio.RasterioIOError) as error:
        raise OutputError(f"{out}: cannot be written to ({error}); pass another folder as --out") from error
    finally:
        for fresh in partial:
            with contextlib.suppress(OSError):  # nothing was written where nothing can be
                fresh.unlink()
    result = map_scene(scene, out, model=model, overwrite=overwrite, stride=64, **options)
    with rasterio.open(result.paths["lulc"]) as dataset:
        codes = dataset.read(1)
    agrees, known = codes == synthetic.truth, synthetic.truth != NODATA
    clear = known & synthetic.clear
    return Demo(
        scene=scene,
        truth=truth,
        result=result,
        cells=int(known.sum()),
        agreement=float(agrees[known].mean()),
        clear_cells=int(clear.sum()),
        clear_agreement=float(agrees[clear].mean()),
    )

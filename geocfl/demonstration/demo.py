"""The demonstration: maps a synthetic scene whose land cover is known."""

from __future__ import annotations

import contextlib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import rasterio

from geocfl.core.files import reason
from geocfl.core.keywords import declared
from geocfl.core.legend import NODATA
from geocfl.core.progress import Progress, silent
from geocfl.demonstration.landscape import write_synthetic_scene
from geocfl.errors import OutputError, UsageError
from geocfl.mapping import SceneMap, map_scene
from geocfl.models.bundle import DEFAULT_MODEL


@dataclass(frozen=True, repr=False)
class Demo:
    """A map of the demonstration scene, compared with the truth.

    Attributes:
        scene: Path of the synthetic scene.
        truth: Path of its land cover, one class code per pixel.
        result: The map.
        cells: Number of cells with a true class.
        agreement: Fraction of `cells` (0..1) whose class on the map is the true one.
        clear_cells: Number of cells that clearly belong to one class.
        clear_agreement: Fraction of `clear_cells` (0..1) whose class on the map is the true one.
    """

    scene: Path
    truth: Path
    result: SceneMap
    cells: int
    agreement: float
    clear_cells: int
    clear_agreement: float

    def __repr__(self) -> str:
        """One line with the agreement between map and truth."""
        clear = f"{self.clear_agreement:.1%} of {self.clear_cells} clear ones"
        return f"<Demo: map and truth agree in {self.agreement:.1%} of {self.cells} cells, {clear}; {self.scene}>"

    def _repr_html_(self) -> str:
        return self.result._repr_html_()


@declared
def demo(
    out: str | Path,
    *,
    model: str | Path = DEFAULT_MODEL,
    seed: int = 0,
    device: str = "auto",
    products: Sequence[str] = ("default",),
    overwrite: bool = False,
    progress: Progress = silent,
) -> Demo:
    """Writes a synthetic scene and its true land cover, maps it at stride 64 and compares the two.

    Args:
        out: Folder for ``demo_scene.tif``, ``demo_truth.tif`` and the map; created if it does not exist.
        model: As in `geocfl.map_scene`.
        seed: Random seed of the landscape, 0..4294967295.
        device: As in `geocfl.map_scene`.
        products: As in `geocfl.map_scene`.
        overwrite: Whether to replace another scene or map in `out`.
        progress: Called with the progress of the map.

    Returns:
        The map and its agreement with the true land cover.

    Raises:
        GeocflError: The folder or the model cannot be used.
    """
    if seed not in range(2**32):
        raise UsageError(f"`seed` is {seed!r} but must be a whole number from 0 to 4294967295")
    out = Path(out)
    scene, truth = out / "demo_scene.tif", out / "demo_truth.tif"
    partial = [path.with_name(f".{path.name}.partial") for path in (scene, truth)]
    try:
        out.mkdir(parents=True, exist_ok=True)
        synthetic = write_synthetic_scene(partial[0], partial[1], seed=seed)
        for path, fresh in zip((scene, truth), partial, strict=True):
            if path.exists() and not overwrite and path.read_bytes() != fresh.read_bytes():
                raise OutputError(
                    f"{path}: already exists with other content; use `overwrite=True` to replace it, or another `out`"
                )
        for path, fresh in zip((scene, truth), partial, strict=True):
            fresh.replace(path)
    except (OSError, rasterio.RasterioIOError) as error:
        raise OutputError(f"{out}: cannot be written to ({reason(error)}); use another folder as `out`") from error
    finally:
        for fresh in partial:
            with contextlib.suppress(OSError):  # missing if writing failed
                fresh.unlink()
    result = map_scene(
        scene, out, model=model, device=device, stride=64, products=products, overwrite=overwrite, progress=progress
    )
    codes = result.lulc
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

"""The command line: one command a verb; each parses, calls one function and prints."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Optional

import typer

app = typer.Typer()


@app.callback()
def main() -> None:
    """Land-use / land-cover maps from Sentinel-2 scenes."""


@app.command()
def train(
    data: Annotated[str, typer.Option()],
    out: Annotated[Path, typer.Option()],
    recipe: str = "default",
    backbone: Optional[str] = None,
    weights: Optional[str] = None,
    split: Optional[str] = None,
    epochs: Optional[int] = None,
    seed: int = 0,
    resume: bool = False,
    overwrite: bool = False,
) -> None:
    """Train."""
    import geocfl

    geocfl.train(data, out, recipe=recipe, backbone=backbone, weights=weights, split=split, epochs=epochs, seed=seed, resume=resume, overwrite=overwrite)

"""What an output folder holds, from one listing: which maps in it are done, without asking for each of their files."""

from __future__ import annotations

import os
from contextlib import suppress
from pathlib import Path
from typing import Any

from geocfl.core.files import parsed_json
from geocfl.core.remembered import Remembered
from geocfl.products.files import FILES, SUMMARY
from geocfl.products.storage import in_store
from geocfl.products.update import Order, Update


class Inventory:
    """A listing of an output folder, made when it is created.

    In an object store, what a summary says is remembered by the store's tag of its content, so that a map that is done
    costs no request. A map that is not found to be done may be: `geocfl.products.staging.Staging` looks for itself.

    Args:
        out: The folder, from `geocfl.products.storage.output_folder`.
        known: Where to remember what summaries say.
    """

    def __init__(self, out: Path, known: Remembered) -> None:
        self._out, self._known = out, known
        self._files: dict[str, str] = {}  # name to the tag of the content, if the store has one
        with suppress(Exception):  # it does not exist yet, or cannot be read; of any type in a store
            self._files = _listed(out)

    def done(self, order: Order, stem: str, *, overwrite: bool) -> Order | None:
        """What a scene's map holds, if it is done; None if it is not, or that is not known.

        Args:
            order: What is asked of it.
            stem: Stem of the scene's file name.
            overwrite: Whether it is to hold nothing else.
        """
        if f"{stem}{SUMMARY}" not in self._files:
            return None
        present = {name for name, suffix in FILES.items() if f"{stem}{suffix}" in self._files}
        update = Update.of(order, self._summary(f"{stem}{SUMMARY}"), present, overwrite=overwrite)
        return update.order if update.summary is not None and not update.made else None

    def _summary(self, name: str) -> Any:
        """What a summary says of the order; None if it cannot be read."""
        key, tag = f"{self._out}/{name}", self._files[name]
        held = self._known.get(key) if tag else None
        if isinstance(held, list) and held[:1] == [tag]:
            return held[-1]
        try:
            summary = parsed_json((self._out / name).read_text(encoding="utf-8"))
        except Exception:  # a store raises errors of any type
            return None
        order = Order.of_summary(summary)
        if tag and order:
            self._known.put(key, [tag, order.as_summary()])
        return summary


def _listed(out: Path) -> dict[str, str]:
    """Names of the files in a folder, each with the store's tag of its content."""
    if not in_store(out):
        with os.scandir(out) as entries:
            return {entry.name: "" for entry in entries if entry.is_file()}
    out.fs.invalidate_cache()
    return {
        entry["name"].rstrip("/").rpartition("/")[2]: str(entry.get("ETag") or entry.get("etag") or "")
        for entry in out.fs.ls(out.path, detail=True)
        if entry["type"] == "file"
    }

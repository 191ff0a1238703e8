"""What is asked of each map, and what its output folder already holds of it."""

from __future__ import annotations

import datetime as dt
from dataclasses import replace
from functools import cached_property
from pathlib import Path

from geocfl.errors import GeocflError, SceneError
from geocfl.mapping.provenance import CLASSIFICATION, Provenance
from geocfl.mapping.recall import Opening, Recall
from geocfl.mapping.saved import SavedCheckpoint
from geocfl.mapping.settings import MapSettings
from geocfl.models.bundle import Bundle
from geocfl.products.files import FILES
from geocfl.products.selection import Selection
from geocfl.products.staging import Earlier, Staging, folder_of
from geocfl.products.storage import in_store, output_folder
from geocfl.products.update import Order, Update, finished
from geocfl.scenes import Reading, Scene, Source
from geocfl.scenes.source import absolute, absolute_path


class Orders:
    """What is asked of the maps of one model with the same settings, and where they go.

    Args:
        model: The bundle.
        settings: The settings of every map.
        selection: The products.
        reading: How scenes are read.
        redo: As for `geocfl.map_scene`.
        work: As for `geocfl.map_scene`.
        remember: Whether to list each output folder once, and to remember there the hashes of scenes; a map of other
            processes that is not in the listing costs time, but is found.
    """

    def __init__(
        self,
        model: Bundle,
        settings: MapSettings,
        selection: Selection,
        reading: Reading,
        *,
        redo: bool,
        work: str | Path | None,
        remember: bool,
    ) -> None:
        self.model, self.settings, self.selection, self.reading = model, settings, selection, reading
        self.redo, self.work = redo, output_folder(work) if work else None
        self.recall = Recall() if remember else None

    @cached_property
    def model_hash(self) -> str:
        """SHA-256 of the model's description, followed by that of its weights."""
        return self.model.digest()

    def provenance(self, scene: Scene) -> Provenance:
        """What a map of this scene is made from."""
        return Provenance(scene, self.model, self.model_hash, self.settings, self.reading.area)

    def order(self, out: str | Path, scene: Scene) -> Order:
        """What is asked of the map of an open scene.

        Raises:
            SceneError: The scene does not say when it was taken, but a product needs it.
        """
        when, origin = self._taken(scene), self.provenance(scene)
        if self.recall:
            origin = replace(origin, known=self.recall.known(output_folder(out)))
        return self._order(origin.digest(), when)

    def _order(self, cells: str, when: dt.datetime | None) -> Order:
        how = self.settings
        time = when.isoformat().replace("+00:00", "Z") if when else None
        return Order(cells, self.selection, how.simplify, how.min_area, time)

    def _taken(self, scene: Scene) -> dt.datetime | None:
        """When the scene was taken, from the settings or the scene; None if neither says so.

        Raises:
            SceneError: Neither says so, but a product needs it.
        """
        when = self.settings.taken() or scene.taken
        if when is None and "stac" in self.selection.products:
            raise SceneError(
                f"{scene.path}: does not say when it was taken, which a STAC Item needs; set `datetime`, such as "
                "2019-04-16, or leave stac out of `products`",
                page="how-to/stac/",
            )
        return when

    def update(self, source: Source, out: str | Path, order: Order, *, overwrite: bool) -> Update:
        """What is to do in an output folder for the map of a scene to hold what is asked of it."""
        if self.redo:
            return Update(order)
        return Update.of(order, *finished(output_folder(out), source.stem), overwrite=overwrite)

    def staging(self, source: Source, out: str | Path, update: Update, *, overwrite: bool) -> Staging:
        """The staging of a scene's products."""
        files, earlier = update.order.selection.files, None
        if update.summary is not None:
            kept, replaced = (frozenset(FILES[name] for name in names) for names in (update.kept, update.there))
            earlier = Earlier(update.summary["hash"], kept, replaced)
        return Staging(
            out,
            source.stem,
            update.order.digest(),
            overwrite=overwrite,
            redo=self.redo,
            suffixes=[suffix for name, suffix in FILES.items() if name in files],
            earlier=earlier,
            work=self._spool(out),
        )

    def opening(self, source: Source, out: str | Path) -> Opening | None:
        """What was remembered of a scene when it was opened before; None if nothing is to be remembered."""
        if self.recall is None:
            return None
        area, mask = self.reading.area, self.reading.mask_file
        how = [CLASSIFICATION, self.model_hash, self.settings.to_json(redacted=False), area.identity if area else None]
        more = [absolute_path(mask)] if mask else [str(self.settings.mask)] if self.settings.mask else []
        return Opening(self.recall.known(output_folder(out)), absolute(source), self.model.bands, more, how)

    def recalled(self, opening: Opening | None) -> Order | None:
        """What is asked of the map of a scene that was opened before and has not changed; None if that is not known."""
        facts = opening.recalled() if opening else None
        if facts is None:
            return None
        try:
            return self._order(str(facts["cells"]), self._when(facts["taken"]))
        except (KeyError, TypeError, ValueError):
            return None

    def _when(self, taken: str | None) -> dt.datetime | None:
        """When a scene was taken, by what is remembered; ValueError if a product needs it and it is unknown."""
        when = self.settings.taken() or (dt.datetime.fromisoformat(taken) if taken else None)
        if when is None and "stac" in self.selection.products:
            raise ValueError("unknown time")
        return when

    def done(self, source: Source, out: str | Path, order: Order, *, overwrite: bool) -> Order | None:
        """What the map of a scene holds, if the listing of the folder shows that it is done."""
        if self.recall is None or self.redo:
            return None
        done = self.recall.done(output_folder(out), source.stem, order, overwrite=overwrite)
        left = done and Staging(out, source.stem, done.digest(), work=self._spool(out)).left()
        return None if left else done

    def may_exist(self, source: Source, out: str | Path) -> bool:
        """Whether the scene has been mapped into this folder, perhaps otherwise; True if that is not known."""
        try:
            summary = output_folder(out) / f"{source.stem}{FILES['summary']}"
            return in_store(summary) or summary.exists()
        except (GeocflError, OSError):  # raised again later
            return True

    def saved(self, out: str | Path, stem: str, digest: str) -> SavedCheckpoint | None:
        """The copy of a scene's checkpoint; None if there is to be none, or `work` holds the checkpoint itself."""
        if not self.work or self._spool(out):
            return None
        return SavedCheckpoint(self.work / folder_of(output_folder(out), stem, digest))

    def _spool(self, out: str | Path) -> Path | None:
        """The folder in `work` for products that go into a store; None to use another."""
        return self.work if self.work and not in_store(self.work) and in_store(output_folder(out)) else None

    def is_shared(self, out: str | Path) -> bool:
        """Whether all machines that use this mapper see the folders of unfinished maps."""
        return self._spool(out) is not None or not in_store(output_folder(out))


def paths_of(out: str | Path, stem: str, order: Order) -> dict[str, Path]:
    """Name and path of each file of a map."""
    files, folder = order.selection.files, output_folder(out)
    return {name: folder / f"{stem}{suffix}" for name, suffix in FILES.items() if name in files}

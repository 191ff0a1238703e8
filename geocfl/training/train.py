"""Training: patches and settings in, a run folder out."""

from __future__ import annotations

import logging
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Unpack

import torch
from torch import Tensor

from geocfl.core.keywords import declared
from geocfl.core.progress import Progress, silent
from geocfl.data.patches import Patches
from geocfl.data.splits import Split
from geocfl.evaluation.logits import mosaic_logits, patch_logits
from geocfl.evaluation.metrics import MOSAICS, compute_metrics, describe_metrics, format_metrics, metrics_html
from geocfl.models import graph_file
from geocfl.models.bundle import Bundle
from geocfl.models.devices import choose_device
from geocfl.models.network import load_network
from geocfl.models.predict import Model, load_model
from geocfl.models.reflectance import DenseReflectance
from geocfl.models.stored import write_stored
from geocfl.training.calibrate import calibrate
from geocfl.training.config import TrainOptions, TrainSettings, frozen_model
from geocfl.training.features import read_features
from geocfl.training.frozen import extend_legend, train_frozen
from geocfl.training.loop import fit, make_learner
from geocfl.training.novelty import with_novelty
from geocfl.training.recipe import resolve
from geocfl.training.run_folder import RunFolder, validated_run
from geocfl.training.start import start, training_patches, training_split

log = logging.getLogger("geocfl")


@dataclass(frozen=True, repr=False)
class Run:
    """A finished training.

    Attributes:
        path: The run folder.
        model: Its model.
        metrics: Content of ``metrics.json``: ``validation`` (without `refit`) and ``test``. A dense model has
            ``validation_mosaics`` and ``test_mosaics`` too, for the same patches inside random mosaics.
    """

    path: Path
    model: Model
    metrics: dict[str, Any]

    def table(self) -> str:
        """The metrics on the test patches as plain text."""
        table = format_metrics(self.metrics["test"])
        inside = self.metrics.get("test" + MOSAICS)
        return f"{table}\n\nInside random mosaics: {describe_metrics(inside)}." if inside else table

    def __repr__(self) -> str:
        """One line: the metrics and the folder."""
        return f"<Run {self.model.name}: {describe_metrics(self.metrics['test'])}; in {self.path}>"

    def _repr_html_(self) -> str:
        return metrics_html(self.metrics["test"], self.model.legend, repr(self)[1:-1])


@declared
def train(
    data: str | Path | None,
    out: str | Path,
    *,
    config: str | Path | None = None,
    device: str = "auto",
    resume: bool = False,
    overwrite: bool = False,
    progress: Progress = silent,
    **options: Unpack[TrainOptions],
) -> Run:
    """Trains a scene classifier and writes its run folder.

    Args:
        data: ``EuroSAT.zip`` or its folder, torchgeo's EuroSAT root, ``eurosat`` (downloads it through torchgeo), or a
            folder (or zip) of class-named folders of patches. None takes the data of `config`.
        out: Run folder to write: the model, ``metrics.json``, ``history.csv``, ``config.json``, figures and
            ``report.html``.
        config: ``config.json`` of an earlier run to repeat; `data` and `options` override it.
        device: ``auto``, ``cpu``, ``cuda``, ``cuda:N`` or ``mps``.
        resume: Resume an interrupted run in `out` after its last finished epoch.
        overwrite: Replace a run in `out`.
        progress: Called with the progress of reading and of each epoch.
        **options: See `geocfl.TrainSettings`; None means not given.

    Returns:
        The run, its model and its metrics.

    Raises:
        GeocflError: The data are broken, the output folder cannot be used, or the weights cannot be found. Until the
            training starts, nothing is written and an earlier run is kept.
    """
    settings, folder = resolve(data, config, **options), RunFolder(Path(out))
    resumed = folder.claim(settings, resume=resume, overwrite=overwrite)
    validated = validated_run(settings)
    torch_device = choose_device(device)
    source = frozen_model(settings)
    patches = training_patches(settings, progress)
    if source and settings.add_classes:
        patches = extend_legend(source, patches)
    split = training_split(patches, settings)
    if source:
        return _train_frozen(settings, source, folder, patches, split, torch_device, progress)
    model, module = start(settings, patches, split, folder.path.name, torch_device)
    learner = make_learner(module, model, patches, split, settings, progress)
    log.info(
        "%d training, %d validation and %d test patches of %d classes; %s with the loss %s, %d epochs on %s",
        len(split.train),
        len(split.validation),
        len(split.test),
        len(patches.legend),
        settings.backbone,
        settings.loss,
        settings.epochs,
        torch_device,
    )
    if not resumed:
        folder.begin(settings)
    try:
        history = fit(learner, patches, split, settings, folder.checkpoint, progress)
    except BaseException:
        if not folder.checkpoint.exists():  # nothing to resume from
            folder.discard()
        raise
    first_split = training_split(patches, replace(settings, refit=""))
    known = read_features(module, patches) if settings.freeze else None  # from the cache
    model, novelty = with_novelty(
        model, module, patches, first_split, validated=validated, known=known, seed=settings.seed
    )
    model = calibrate(model, module, learner, patches, split, settings, validated)
    with folder.writing():
        model = model.save(folder.path, {**module.network.state_dict(), **novelty})
    metrics, logits = _evaluate(model, patches, split, torch_device)
    model = _with_metrics(model, metrics, validated)
    with folder.writing():
        graph_file.write_graph(model)
        folder.finish(model, metrics, history=history, patches=patches, test=split.test, logits=logits)
    return Run(folder.path, load_model(folder.path), metrics)


def _train_frozen(
    settings: TrainSettings,
    source: Bundle,
    folder: RunFolder,
    patches: Patches,
    split: Split,
    device: torch.device,
    progress: Progress,
) -> Run:
    """Trains a last layer on the features of a model, and writes its run folder at once."""
    made = train_frozen(settings, source, patches, split, folder.path.name, device, progress)
    folder.begin(settings)
    with folder.writing():
        model = made.model.save(folder.path, made.tensors)
        write_stored(folder.path, made.stored.features, made.stored.labels)
    tested, logits = split.test, made.logits
    if len(tested):
        metrics, logits = _evaluate(model, patches, Split(split.train, split.train[:0], tested), device)
        metrics = {f"validation{end}": values for end, values in made.metrics.items()} | metrics
    else:
        tested, metrics = split.train, {f"test{end}": values for end, values in made.metrics.items()}
    model = _with_metrics(model, metrics, None)
    with folder.writing():
        graph_file.write_graph(model)
        folder.finish(model, metrics, history=made.history, patches=patches, test=tested, logits=logits)
    return Run(folder.path, load_model(folder.path), metrics)


def _evaluate(model: Bundle, patches: Patches, split: Split, device: torch.device) -> tuple[dict[str, Any], Tensor]:
    """Metrics by subset, and the logits of the test patches, of the model as it was saved, in half precision."""
    module = load_network(model).to(device).to(memory_format=torch.channels_last)
    subsets = {name: rows for name, rows in (("validation", split.validation), ("test", split.test)) if len(rows)}
    metrics = {}
    for name, rows in subsets.items():
        labels = torch.from_numpy(patches.labels[rows])
        logits = patch_logits(module, patches, rows)
        metrics[name] = compute_metrics(logits, labels, model.legend, model.temperature, model.conformal)
        if isinstance(module, DenseReflectance):
            inside = mosaic_logits(module, patches, rows)
            metrics[name + MOSAICS] = compute_metrics(inside, labels, model.legend, model.temperature, model.conformal)
    return metrics, logits  # the test patches come last


def _with_metrics(model: Bundle, metrics: dict[str, Any], validated: Bundle | None) -> Bundle:
    """The model with its metrics in its origin, and those of the run that it refits."""
    origin = dict(model.origin)
    origin["metrics"] = {
        name: {key: values[key] for key in ("n", "accuracy", "macro_f1", "ece")}
        | {"users_accuracy": {row["name"]: row["precision"] for row in values["per_class"]}}
        for name, values in metrics.items()
    }
    if validated:
        origin["refit_of"] = {key: validated.origin.get(key) for key in ("patches", "metrics")}
    return replace(model, origin=origin)

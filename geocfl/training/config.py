"""The settings of a training: everything that decides its result, and their file, ``config.json``."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, TypedDict

from geocfl.core.files import parsed_json
from geocfl.data.augmentation import Augmentation
from geocfl.data.patches import RGB
from geocfl.errors import UsageError
from geocfl.models.bundle import Bundle
from geocfl.models.weights import weights_model

AUGMENTATION = Augmentation(rotation=15, zoom=0.2, shift=0.06, dihedral=True, surface=0.5, gain=0.05, haze=0.005)
RENAMED = {"form": "cfl_form"}
"""Settings that version 0.1 wrote under another name."""


@dataclass(frozen=True)
class TrainSettings:
    """Everything that decides the result of a training; the content of ``config.json``.

    Attributes:
        data: Path of the patches, as for `geocfl.train`.
        split: ``paper``, ``spatial``, ``manifest`` (that of `geocfl.patches`) or ``random:FRACTION``; for a last layer
            on the features of a model also ``all``: every patch trains, and the accuracy is that of a cross-validation.
        imbalance: ``none``, ``long-tail:R`` or ``step:R``; thins the training patches until the largest class has R
            times as many as the smallest.
        class_order: Order of the classes, from largest to smallest, for the thinning: ``legend``, ``reversed``,
            ``random``, or every class code once.
        bands: Bands that the network reads, in this order.
        backbone: ``resnet18``, ``resnet34``, ``resnet50``, ``lite0``, or a name from `geocfl.register_backbone`.
        weights: Initial weights: ``imagenet``, a torchgeo name, a file, a model folder, a built-in model,
            or ``none``.
        dense: Train a model whose trunk runs over a whole scene: on mosaics of patches, blurred and under different
            atmospheres.
        freeze: Train only the last layer, on the backbone's features of the patches without augmentation. If `weights`
            is a model, the run takes its bands, backbone and normalization, and fits the layer until it converges.
        add_classes: Keep the classes of the model in `weights`, and add those of the patches.
        recipe: Name of the recipe that supplied the settings that were not given.
        loss: ``ce``, ``weighted-ce``, ``focal``, ``class-focal``, ``cb-focal``, ``balanced-softmax``,
            ``logit-adjusted``, ``ldam``, or a name from `geocfl.register_loss`.
        gamma: Focusing parameter of the loss, >= 0; 0 if it has none.
        cfl_form: ``exponent`` or ``factor``: where the class focal loss has the class shares.
        teacher: Models to distill from, folders or names.
        distill: Weight of the teacher's term in the loss, 0..1.
        hint: Weight of the cosine distance between the features of student and teacher, >= 0.
        label_smoothing: Share of the loss that treats all classes as equally right, in [0, 1).
        mixup: Parameter of mixup's Beta distribution, >= 0; 0 turns mixup off.
        epochs: Passes over the training patches, >= 1.
        batch_size: Patches per step, >= 2.
        lr: Peak learning rate, > 0.
        optimizer: ``adam`` or ``adamw``.
        weight_decay: Weight decay, >= 0; biases and normalization layers are not decayed.
        schedule: ``one-cycle`` or ``constant``.
        dropout: Probability of dropout before the last layer, in [0, 1).
        stage_dropout: Probability of dropping a channel after each stage of a ResNet, in [0, 1).
        compile: Compile the network with `torch.compile`, which takes minutes and then trains faster.
        augmentation: Random changes of the training patches.
        input_size: Side in pixels to which windows are scaled, >= 32.
        seed: Random seed, 0..4294967295; the same seed gives the same result.
        scale: In reflectance = (DN + offset) / scale, > 0; None takes the layout's own.
        offset: In the same formula, in digital numbers; None takes the layout's own.
        skip_bad: Leave out patches that cannot be read or differ from the others.
        refit: Run folder of a run with the same settings. Its validation patches become training patches, the last
            epoch is kept, and its temperature and tau are used. Empty for an ordinary run.
    """

    data: str
    split: str = "paper"
    imbalance: str = "none"
    class_order: str | tuple[int, ...] = "legend"
    bands: tuple[str, ...] = RGB
    backbone: str = "resnet18"
    weights: str = ""
    dense: bool = False
    freeze: bool = False
    add_classes: bool = False
    recipe: str = "default"
    loss: str = "class-focal"
    gamma: float = 0.0
    cfl_form: str = "exponent"
    teacher: tuple[str, ...] = ()
    distill: float = 0.9
    hint: float = 2.0
    label_smoothing: float = 0.0
    mixup: float = 0.0
    epochs: int = 0
    batch_size: int = 64
    lr: float = 1e-3
    optimizer: str = "adamw"
    weight_decay: float = 0.01
    schedule: str = "one-cycle"
    dropout: float = 0.25
    stage_dropout: float = 0.0
    compile: bool = False
    augmentation: Augmentation = AUGMENTATION
    input_size: int = 0
    seed: int = 0
    scale: float | None = None
    offset: float | None = None
    skip_bad: bool = False
    refit: str = ""

    def to_json(self) -> dict[str, Any]:
        """The content of ``config.json``."""
        values = asdict(self) | {"teacher": ",".join(self.teacher)}
        if not isinstance(self.class_order, str):
            values["class_order"] = ",".join(map(str, self.class_order))
        facts: dict[str, Any] = json.loads(json.dumps(values))
        return facts


class GridOptions(TypedDict, total=False):
    """Options that `geocfl.train` and `geocfl.compare` share; see `TrainSettings`. None means not given."""

    split: str | None
    class_order: str | Sequence[int] | None
    bands: Sequence[str] | None
    backbone: str | None
    weights: str | Path | None
    freeze: bool | None
    recipe: str | None
    gamma: float | None
    cfl_form: str | None
    teacher: Sequence[str | Path] | None
    distill: float | None
    hint: float | None
    mixup: float | None
    epochs: int | None
    batch_size: int | None
    lr: float | None
    optimizer: str | None
    weight_decay: float | None
    schedule: str | None
    dropout: float | None
    stage_dropout: float | None
    compile: bool | None
    augmentation: Augmentation | None
    input_size: int | None
    scale: float | None
    offset: float | None
    skip_bad: bool | None


class TrainOptions(GridOptions, total=False):
    """Options of `geocfl.train`: the fields of `TrainSettings` except `data`. None means not given."""

    dense: bool | None
    add_classes: bool | None
    imbalance: str | None
    label_smoothing: float | None
    loss: str | None
    seed: int | None
    refit: str | Path | None


def frozen_model(settings: TrainSettings) -> Bundle | None:
    """The model whose features a run trains its last layer on; None for other runs."""
    return weights_model(settings.weights) if settings.freeze else None


def read_config(path: Path) -> TrainSettings:
    """The settings in a ``config.json``.

    Raises:
        UsageError: It is not the file of a run.
    """
    try:
        values = current_names(parsed_json(path.read_text()))
        values["bands"] = tuple(values["bands"])
        values["teacher"] = tuple(name for name in values.get("teacher", "").split(",") if name)
        values["class_order"] = read_order(values.get("class_order", "legend"))
        values["augmentation"] = Augmentation(**values["augmentation"])
        return TrainSettings(**values)
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise UsageError(f"{path}: not the config.json of a run ({error}); pass RUN/config.json") from error


def current_names(values: dict[str, Any]) -> dict[str, Any]:
    """Settings that an older version wrote, under their current names."""
    return {RENAMED.get(name, name): value for name, value in values.items()}


def read_order(text: str) -> str | tuple[int, ...]:
    """``"legend"`` as it is; ``"3,1,2"`` as class codes."""
    codes = text.split(",")
    return tuple(map(int, codes)) if all(code.strip().isdigit() for code in codes) else text

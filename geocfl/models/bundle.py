"""The model bundle: a folder with the weights of a network and the facts needed to use them."""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any, Self

from geocfl.core.display import paragraph
from geocfl.core.files import parsed_json
from geocfl.core.legend import Legend
from geocfl.errors import ModelError, UsageError, did_you_mean

FACTS, WEIGHTS, GRAPH = "model.json", "model.safetensors", "model.onnx"
"""The files of a bundle; it may lack the last one, see `geocfl.models.graph`."""
FORMAT_VERSION = 1
HEADS = ("linear", "cosine")
"""Kinds of last layers."""
MAX_NAME = 200
"""Bytes of a model's name, which becomes that of files with endings."""
MAX_SIDE = 8192
"""Largest side in pixels of a window and of a network's input."""
TTA = (1, 2, 4, 8)
"""Numbers of rotations and flips that test-time augmentation can average over; a square has eight."""
BUNDLED = Path(__file__).parent / "bundled"
DEFAULT_MODEL = "eurosat-rgb-dense"
DEFAULT_WINDOWED = "eurosat-rgb-lite0"
"""The built-in model that classifies window by window."""
NOVELTY = "novelty."
"""Start of the names of the tensors in the weights file that are not the network's: those of its novelty."""
CONTEXT = 32
"""Pixels around its window that a dense model sees as well, on each side; at most half of the window."""
REDUCTION = 32
"""Pixels of a dense network's input between its features, along each axis: that of ResNet and EfficientNet."""
PERCENTILES = 101
"""Quantiles of novelty in a bundle: those of 0, 1, ... 100 percent."""


@dataclass(frozen=True, repr=False)
class Bundle:
    """The facts about a model. Its weights stay on disk until a network or back end is loaded from it.

    Attributes:
        name: Name of the model.
        backbone: Name of its backbone, such as ``"lite0"``.
        bands: Bands that the model reads, in order, such as ``("B04", "B03", "B02")``.
        gsd: Ground sampling distance of its training data in meters.
        window: Side of the square that it classifies, in pixels of size `gsd`.
        input_size: Side in pixels that windows are resized to.
        clip: Lowest and highest reflectance of its training data.
        mean: Mean of each band of its training data, reflectance after clipping.
        std: Standard deviation of each band of its training data, reflectance after clipping.
        legend: Its classes.
        temperature: Divisor of the logits that calibrates the probabilities.
        origin: How it was made: data, split, seed, loss, epochs, metrics, versions, license.
        head: Its last layer, ``"linear"`` or ``"cosine"``.
        tta: Test-time augmentation: the logits of a window are averaged over this many rotations and flips, 1, 2, 4 or
            8.
        feature_stride: Pixels of a scene between the features of a dense model, which computes them for a whole scene
            at once; 0 for a model that classifies window by window.
        novelty: Quantiles of the novelty of validation patches, those of 0, 1, ... 100 percent. With them the residual
            of a window (`geocfl.models.novelty.Residual`) becomes a percentile. Empty for a model without novelty.
        damping: How fast the temperature grows with novelty. Logits are divided by `temperature` times max(1, r / m) to
            this power, where r is the residual of a window and m its median, the quantile of 50 percent.
        conformal: Threshold of each class for prediction sets, 0..1: a class is in the set of a window if 1 - its
            probability is at most its threshold. Empty for a model without prediction sets.
        correlation: How much the probabilities of one place at two dates err together, 0 (independently) to 1 (alike,
            or unknown). It decides nothing in a map, only how sure `geocfl.mosaic` is of several maps together.
        path: Folder of the bundle; None before it is saved.
    """

    name: str
    backbone: str
    bands: tuple[str, ...]
    gsd: float
    window: int
    input_size: int
    clip: tuple[float, float]
    mean: tuple[float, ...]
    std: tuple[float, ...]
    legend: Legend
    temperature: float = 1.0
    origin: dict[str, Any] = field(default_factory=dict)
    head: str = "linear"
    tta: int = 1
    feature_stride: int = 0
    novelty: tuple[float, ...] = ()
    damping: float = 0.0
    conformal: tuple[float, ...] = ()
    correlation: float = 1.0
    path: Path | None = None

    @classmethod
    def load(cls, model: str | Path = DEFAULT_MODEL) -> Self:
        """Reads the facts of a bundle and checks them. No code from the bundle runs.

        Args:
            model: A bundle's folder, a run folder of ``geocfl train``, or the name of a built-in model.

        Raises:
            ModelError: There is no such bundle, a file is missing, or the facts are corrupt or in a newer format.
        """
        path = _find(model)
        file = path / FACTS
        try:
            facts = parsed_json(file.read_text())
            version = facts.pop("format_version")
            if version != FORMAT_VERSION:
                raise ModelError(
                    f"{file}: bundle format {version} is not {FORMAT_VERSION}; install the geocfl that wrote it"
                )
            if "views" in facts:  # its name in geocfl 0.1
                facts["tta"] = facts.pop("views")
            if "licence" in facts.get("origin", {}):  # also its name in geocfl 0.1
                facts["origin"] = {"license" if key == "licence" else key: v for key, v in facts["origin"].items()}
            for name in ("bands", "clip", "mean", "std"):
                facts[name] = tuple(facts[name])
            for name in ("novelty", "conformal"):  # bundles of geocfl 0.1 have neither
                facts[name] = tuple(facts.get(name, ()))
            if "temperature" not in facts:  # a default would change the confidences without a word
                raise KeyError("temperature")
            bundle = cls(**{**facts, "legend": Legend.from_json(facts["legend"])}, path=path)
            bundle._check()
            return bundle
        except (OSError, ValueError, KeyError, TypeError, AttributeError, OverflowError) as error:
            raise ModelError(
                f"{file}: not a readable model description ({error}); restore the file", page="reference/model-bundle/"
            ) from error

    def _check(self) -> None:
        for holds, problem in _RULES:
            if not holds(self):
                raise ValueError(problem)

    @property
    def context(self) -> int:
        """Pixels around a window that a dense model sees as well; 0 for other models."""
        step = self.feature_stride
        return min(CONTEXT, self.window // 2) // step * step if step else 0

    @property
    def footprint(self) -> int:
        """Side in pixels of a window with the context around it."""
        return self.window + 2 * self.context

    def strides(self) -> range:
        """The cell sizes that this model can map, in pixels."""
        step = self.feature_stride or 1
        return range(step, self.window + 1, step)

    def check_stride(self, stride: int) -> None:
        """Checks that the model can map cells of `stride` pixels.

        Raises:
            UsageError: It cannot.
        """
        if stride in self.strides():
            return
        if not self.feature_stride:
            raise UsageError(f"`stride` is {stride} but must be between 1 and the model's window, {self.window} px")
        known = ", ".join(map(str, self.strides()))
        raise UsageError(
            f"`stride` is {stride}, but {self.name} is a dense model, which maps strides {known}; use one of them, or "
            f"`model={DEFAULT_WINDOWED}`, which maps any stride"
        )

    def with_tta(self, tta: int | None) -> Self:
        """The same model with test-time augmentation: more accurate, and that many times slower.

        Args:
            tta: How many rotations and flips to average over, 1, 2, 4 or 8; None keeps the bundle's own.

        Raises:
            UsageError: Another number.
        """
        if tta is None:
            return self
        if tta not in TTA:
            raise UsageError(
                f"`tta` is {tta!r} but must be one of {', '.join(map(str, TTA))}; 8 is the most accurate",
                page="how-to/tta/",
            )
        return replace(self, tta=tta)

    @property
    def folder(self) -> Path:
        """Folder of the bundle.

        Raises:
            ModelError: The bundle has not been saved.
        """
        if self.path is None:
            raise ModelError(f"{self.name}: the model has no weights yet; save it first")
        return self.path

    def digest(self) -> str:
        """SHA-256 of the facts file followed by that of the weights file, 128 hexadecimal digits.

        Facts that decide nothing in a map do not count: the hash is that of the file without them.

        Raises:
            ModelError: A file cannot be read.
        """
        try:
            contents = [(self.folder / name).read_bytes() for name in (FACTS, WEIGHTS)]
        except OSError as error:
            raise ModelError(f"{self.folder}: cannot be read ({error.strerror}); pass another `model`") from error
        contents[0] = _without_correlation(contents[0])
        return "".join(hashlib.sha256(content).hexdigest() for content in contents)

    def to_json(self) -> dict[str, Any]:
        """The content of the facts file."""
        facts = {name: value for name, value in asdict(self).items() if name not in ("legend", "path")}
        return {"format_version": FORMAT_VERSION, **facts, "legend": self.legend.to_json()}

    def save(self, folder: Path, state: Mapping[str, Any]) -> Self:
        """Writes the bundle.

        Args:
            folder: Folder to write; created if it does not exist.
            state: The network's tensors; floating-point ones are stored in half precision.

        Returns:
            The same model with `folder` as its path.
        """
        import torch
        from safetensors.torch import save

        folder.mkdir(parents=True, exist_ok=True)
        tensors = {
            name: (value.half() if value.is_floating_point() else value).cpu().contiguous()
            for name, value in state.items()
            if isinstance(value, torch.Tensor)
        }
        # Not save_file, which makes files that only their owner can read.
        (folder / WEIGHTS).write_bytes(save(tensors, metadata={"format": "pt"}))
        self.write_facts(folder)
        return replace(self, path=folder)

    def write_facts(self, folder: Path) -> None:
        """Writes the facts file of the bundle into a folder."""
        (folder / FACTS).write_bytes(_encoded(self.to_json()))

    def __repr__(self) -> str:
        """One line: input, classes and test accuracy."""
        return f"<{type(self).__name__} {self.name}: {'; '.join(filter(None, [self._input(), self._accuracy()]))}>"

    def _repr_html_(self) -> str:
        caption = "; ".join(filter(None, [f"{self.name}: {self._input()}", self._accuracy()]))
        return paragraph(caption) + self.legend._repr_html_()

    def _input(self) -> str:
        size = f"{self.window} x {self.window} px at {self.gsd:g} m"
        return f"{self.backbone}, {len(self.legend)} classes of {size} in {', '.join(self.bands)}"

    def _accuracy(self) -> str:
        """Its metrics on the test patches; empty if the bundle has none."""
        try:
            test = self.origin["metrics"]["test"]
            return f"accuracy {test['accuracy']:.1%}, macro F1 {test['macro_f1']:.3f} on {test['n']:,} test patches"
        except (KeyError, TypeError, ValueError):
            return ""


def _encoded(facts: Mapping[str, Any]) -> bytes:
    """The facts file."""
    return (json.dumps(facts, indent=2) + "\n").encode()


def _without_correlation(content: bytes) -> bytes:
    """The facts file as it was before the correlation was fitted; the same if it has none, or is not one."""
    try:
        facts = parsed_json(content.decode())
        del facts["correlation"]
    except (ValueError, KeyError, TypeError):
        return content
    return _encoded(facts)


def _find(model: str | Path) -> Path:
    """The folder of a bundle, checked to hold both files."""
    path = Path(model)
    if not path.exists() and (BUNDLED / str(model)).is_dir():
        path = BUNDLED / str(model)
    if not path.is_dir():
        known = bundled_models()
        raise ModelError(
            f"{model}: no such model; {did_you_mean(str(model), known)}pass a model folder, or the built-in "
            f"{' or '.join(known)}",
            page="reference/model-bundle/",
        )
    for name in (FACTS, WEIGHTS):
        if not (path / name).is_file():
            raise ModelError(
                f"{path / name}: missing from the model; pass a folder with {FACTS} and {WEIGHTS}",
                page="reference/model-bundle/",
            )
    return path


def looks_like_model(path: str | Path) -> bool:
    """Whether a path is a model folder, even an incomplete one, or the name of a built-in model, even misspelled."""
    folder = Path(path)
    if folder.exists():
        return any((folder / name).is_file() for name in (FACTS, WEIGHTS))
    return not folder.suffix and bool(did_you_mean(str(path), bundled_models()))


def bundled_models() -> list[str]:
    """Names of the built-in models."""
    return sorted(file.parent.name for file in BUNDLED.glob(f"*/{FACTS}"))


def _texts(*values: Any) -> bool:
    return all(isinstance(value, str) and value and value.isprintable() for value in values)


def _whole(*values: Any) -> bool:
    return all(type(value) is int and 0 <= value <= MAX_SIDE for value in values)


def _finite(*values: Any) -> bool:
    return all(isinstance(value, int | float) and type(value) is not bool and math.isfinite(value) for value in values)


_RULES: tuple[tuple[Callable[[Bundle], bool], str], ...] = (
    (
        lambda b: _texts(b.name, b.backbone, *b.bands),
        "name, backbone and bands must be text without control characters",
    ),
    (
        lambda b: not set(b.name) & set("/\\:") and b.name not in (".", "..") and len(b.name.encode()) <= MAX_NAME,
        f"name must do as that of a file: no slashes, at most {MAX_NAME} bytes",
    ),
    (lambda b: b.head in HEADS, f"head must be one of {HEADS}"),
    (lambda b: isinstance(b.origin, dict), "origin must be an object"),
    (
        lambda b: (
            len(b.bands) == len(set(b.bands)) == len(b.mean) == len(b.std) and len(b.clip) == 2 and len(b.bands) > 0
        ),
        "bands, mean, std and clip do not fit together",
    ),
    (
        lambda b: _whole(b.window, b.input_size, b.feature_stride, b.tta),
        f"window, input_size, feature_stride and tta must be whole numbers from 0 to {MAX_SIDE}",
    ),
    (
        lambda b: _finite(b.gsd, b.temperature, b.damping, *b.clip, *b.mean, *b.std, *b.novelty, *b.conformal),
        "gsd, temperature, damping, clip, mean, std, novelty and conformal must be finite numbers",
    ),
    (
        lambda b: all(value > 0 for value in (b.gsd, b.window, b.input_size, b.temperature, *b.std)),
        "gsd, window, input_size, temperature and std must be above 0",
    ),
    (lambda b: b.clip[0] < b.clip[1], "clip must ascend"),
    (
        lambda b: all(b.clip[0] <= mean <= b.clip[1] for mean in b.mean) and max(b.std) <= b.clip[1] - b.clip[0],
        "mean and std must be those of reflectance within clip",
    ),
    (lambda b: len(b.legend) > 1, "a model needs two classes"),
    (lambda b: b.tta in TTA, f"tta must be one of {TTA}"),
    (lambda b: not b.feature_stride or b.window % b.feature_stride == 0, "feature_stride must divide the window"),
    (
        lambda b: not b.feature_stride or b.feature_stride * b.input_size == REDUCTION * b.window,
        f"feature_stride must be {REDUCTION} * window / input_size",
    ),
    (
        lambda b: not b.novelty or (len(b.novelty) == PERCENTILES and list(b.novelty) == sorted(b.novelty)),
        f"novelty must be {PERCENTILES} ascending quantiles",
    ),
    (
        lambda b: b.damping == 0 or (b.damping > 0 and bool(b.novelty) and b.novelty[PERCENTILES // 2] > 0),
        "damping must not be negative, and needs novelty",
    ),
    (
        lambda b: not b.conformal or (len(b.conformal) == len(b.legend) and all(0 <= t <= 1 for t in b.conformal)),
        "conformal must be one threshold from 0 to 1 per class",
    ),
    (lambda b: _finite(b.correlation) and 0 <= b.correlation <= 1, "correlation must be a number from 0 to 1"),
)
"""What must hold for the facts of a bundle, in this order, and what is wrong otherwise."""

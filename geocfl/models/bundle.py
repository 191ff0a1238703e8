"""The model bundle: a folder of weights and the facts without which they mean nothing."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, fields, replace
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

from numpy.typing import ArrayLike

from geocfl.core.display import paragraph
from geocfl.core.legend import Legend
from geocfl.core.progress import Progress, silent
from geocfl.errors import ModelError, UsageError, did_you_mean

if TYPE_CHECKING:
    from geocfl.models.network import Reflectance
    from geocfl.models.predict import Classifier, Prediction

FORMAT_VERSION = 1
TTA = (1, 2, 4, 8)
"""Numbers of rotations and flips that test-time augmentation can average over; a square has eight."""
BUNDLED = Path(__file__).parent / "bundled"
DEFAULT_MODEL = "eurosat-rgb-lite0"


@dataclass(frozen=True, repr=False)
class Model:
    """What a model states about itself (``model.json``); its weights stay on disk until `network` loads them.

    Attributes:
        name: Name of the model.
        backbone: Key of `geocfl.models.network.BACKBONES`.
        bands: Bands it reads, in order, such as ``("B04", "B03", "B02")``.
        gsd: Ground sampling distance it was trained at, metres.
        window: Side of the square it classifies, pixels at `gsd`.
        input_size: Side that windows are scaled to, pixels.
        clip: Least and largest reflectance it saw.
        mean: Band means of its training data, reflectance after clipping.
        std: Band standard deviations, likewise.
        legend: Its classes.
        temperature: Divides the logits, so that probabilities are calibrated.
        origin: Where it came from: data, split, seed, loss, epochs, metrics, versions, licence.
        head: One of `geocfl.models.network.HEADS`.
        tta: Test-time augmentation, one of `TTA`: the logits of a window are averaged over so many rotations and flips.
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
    path: Path | None = None

    def network(self) -> Reflectance:
        """The network with its weights in float32 on the CPU, in evaluation mode: reflectance in, logits out.

        Raises:
            ModelError: The weights are missing, corrupt or not this backbone's.
        """
        from geocfl.models.network import read_weights

        if self.path is None:
            raise ModelError(f"{self.name}: the model has no weights yet; save it first")
        file = self.path / "model.safetensors"
        state = {
            name: value.float() if value.is_floating_point() else value for name, value in read_weights(file).items()
        }
        module = self.wrap(None)
        try:
            module.network.load_state_dict(state)
        except RuntimeError as error:
            raise ModelError(
                f"{file}: not the weights of the {self.backbone} in model.json; restore the file"
            ) from error
        return module.eval()

    def wrap(self, network: Any | None) -> Reflectance:
        """A network of this model's backbone behind this model's clip, resize and normalization.

        Args:
            network: From `geocfl.models.network.build_network`; None makes one with random weights.
        """
        from geocfl.models.network import Reflectance, build_network

        if network is None:
            network = build_network(self.backbone, len(self.bands), len(self.legend), head=self.head)
        return Reflectance(network, self.clip, self.mean, self.std, self.input_size, self.tta)

    def with_tta(self, tta: int | None) -> Model:
        """The same model with test-time augmentation: more accurate, and that many times slower.

        Args:
            tta: How many rotations and flips to average over, one of `TTA`; None leaves the bundle's own.

        Raises:
            UsageError: Another number.
        """
        if tta is None:
            return self
        if tta not in TTA:
            raise UsageError(
                f"`tta={tta}` is not one of {', '.join(map(str, TTA))}; 8 is the most accurate",
                page="how-to/tta/",
            )
        return replace(self, tta=tta)

    def predict(
        self,
        array: ArrayLike,
        *,
        stride: int | None = None,
        device: str = "auto",
        backend: str = "auto",
        precision: str = "auto",
        batch_size: int | None = None,
        progress: Progress = silent,
    ) -> Prediction:
        """Classifies an array in memory.

        A stack of windows (N, B, window, window) gives N classes. An image (B, height, width) of at least one window
        gives a class for each cell of `stride` x `stride` pixels, ceil(height / stride) rows of ceil(width / stride)
        cells: the same as `geocfl.map_scene` gives, where windows reach over the edge mirrored pixels included.

        The back end is loaded at the first call and kept; calls from several threads take turns.

        Args:
            array: Float reflectance, 0..1 nominal, of `bands` in their order, on a grid of `gsd` metres; a pixel that
                is NaN, infinite or masked in any band is no data.
            stride: Side of an image's cells, pixels, 1 to the window; the window by default.
            device: ``auto``, ``cpu``, ``cuda``, ``cuda:N`` or ``mps``.
            backend: One of `geocfl.models.backends.BACKENDS`.
            precision: One of `geocfl.models.backends.PRECISIONS`.
            batch_size: Windows at a time; what is fast on the device by default.
            progress: Told how many windows are classified.

        Returns:
            Codes, names, confidences and probabilities.

        Raises:
            UsageError: The array has another shape or holds digital numbers, or an option cannot be meant.
            ModelError: The weights cannot be read.
        """
        return self._classifier.predict(array, stride, device, backend, precision, batch_size, progress)

    @cached_property
    def _classifier(self) -> Classifier:
        from geocfl.models.predict import Classifier

        return Classifier(self)

    def __getstate__(self) -> dict[str, Any]:
        """The fields alone: back ends that `predict` has loaded stay in their process."""
        return {f.name: getattr(self, f.name) for f in fields(self)}

    def __repr__(self) -> str:
        """One line: what it reads, what it tells apart, how good it is."""
        return f"<Model {self.name}: {'; '.join(filter(None, [self._reads(), self._judged()]))}>"

    def _repr_html_(self) -> str:
        caption = "; ".join(filter(None, [f"{self.name}: {self._reads()}", self._judged()]))
        return paragraph(caption) + self.legend._repr_html_()

    def _reads(self) -> str:
        size = f"{self.window} x {self.window} px at {self.gsd:g} m"
        return f"{self.backbone}, {len(self.legend)} classes of {size} in {', '.join(self.bands)}"

    def _judged(self) -> str:
        """Its figures on test patches, where it states them."""
        try:
            test = self.origin["metrics"]["test"]
            return f"accuracy {test['accuracy']:.1%}, macro F1 {test['macro_f1']:.3f} on {test['n']:,} test patches"
        except (KeyError, TypeError, ValueError):
            return ""

    def to_json(self) -> dict[str, Any]:
        """The content of ``model.json``."""
        facts = {name: value for name, value in asdict(self).items() if name not in ("legend", "path")}
        return {"format_version": FORMAT_VERSION, **facts, "legend": self.legend.to_json()}

    def save(self, folder: Path, state: Mapping[str, Any]) -> Model:
        """Writes the bundle.

        Args:
            folder: Made where it is missing.
            state: The network's tensors; floating ones are stored in half precision.

        Returns:
            The model as it lies in `folder`.
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
        (folder / "model.safetensors").write_bytes(save(tensors, metadata={"format": "pt"}))
        (folder / "model.json").write_text(json.dumps(self.to_json(), indent=2) + "\n")
        return replace(self, path=folder)


def load_model(model: str | Path = DEFAULT_MODEL) -> Model:
    """Opens a model bundle; no code of it is run, and its weights are not read yet.

    Args:
        model: A bundle's folder, a run folder of ``geocfl train``, or the name of a bundled model.

    Raises:
        ModelError: There is no such bundle, or its ``model.json`` is missing, corrupt or of a newer format.
    """
    path = Path(model)
    if not path.exists() and (BUNDLED / str(model)).is_dir():
        path = BUNDLED / str(model)
    if not path.is_dir():
        raise ModelError(
            f"{model}: no such model; {did_you_mean(str(model), bundled_models())}"
            f"pass the folder of a bundle or one of the bundled {', '.join(bundled_models())}",
            page="reference/model-bundle/",
        )
    file = path / "model.json"
    for part in (file, path / "model.safetensors"):
        if not part.is_file():
            raise ModelError(
                f"{part}: missing from the model bundle; pass a folder with model.json and model.safetensors",
                page="reference/model-bundle/",
            )
    try:
        facts = json.loads(file.read_text())
        version = facts.pop("format_version")
        if version != FORMAT_VERSION:
            raise ModelError(
                f"{file}: bundle format {version} is not {FORMAT_VERSION}; install the geocfl that wrote it"
            )
        if "views" in facts:  # as geocfl 0.1 wrote it
            facts["tta"] = facts.pop("views")
        for name in ("bands", "clip", "mean", "std"):
            facts[name] = tuple(facts[name])
        loaded = Model(**{**facts, "legend": Legend.from_json(facts["legend"])}, path=path)
        _check(loaded)
        return loaded
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise ModelError(
            f"{file}: not a readable model description ({error}); restore the file", page="reference/model-bundle/"
        ) from error


def _check(model: Model) -> None:
    bands = len(model.bands)
    if not bands or len(model.mean) != bands or len(model.std) != bands or len(model.clip) != 2:
        raise ValueError("bands, mean, std and clip do not fit together")
    if not all(value > 0 for value in (model.gsd, model.window, model.input_size, model.temperature, *model.std)):
        raise ValueError("gsd, window, input_size, temperature and std must be above 0")
    if model.tta not in TTA:
        raise ValueError(f"tta must be one of {TTA}")


def bundled_models() -> list[str]:
    """Names of the models that ship with geocfl."""
    return sorted(p.parent.name for p in BUNDLED.glob("*/model.json"))

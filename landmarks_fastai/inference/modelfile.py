"""A model file says all that is needed to use it: weights, and a JSON header beside them.

Knows the header, the safetensors layout and what to refuse. Nothing about pictures or boxes, and torch
is imported only for what has torch weights: an ONNX file is opened without it.
"""

from __future__ import annotations

import json
import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timezone
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from landmarks_fastai import __version__
from landmarks_fastai.errors import LandmarksError, UserError
from landmarks_fastai.files import replacing
from landmarks_fastai.schema import Schema

if TYPE_CHECKING:
    from torch import Tensor, nn

FORMAT = 1
"""The version of the header that this package writes, and the newest that it reads."""

HEADER_KEY = "landmarks_fastai"
"""Under which the header stands in safetensors' metadata and ONNX's metadata_props."""

MODEL_NAME = "model.safetensors"

RELEASED = Path(__file__).resolve().parents[2] / "models"
if not RELEASED.is_dir():  # installed as a wheel: one model travels inside the package
    RELEASED = Path(__file__).resolve().parents[1] / "models"


class ModelHeader(BaseModel):
    """What stands beside the weights.

    `mean` and `std` (one for each channel) normalise pixels that run from 0 to 1:
    ``(byte / 255 - mean) / std``. In JSON the schema stands under ``"schema"``; as an attribute it is
    `landmarks`, since pydantic keeps the other name for itself. `mean_face`, K times x and y in shares of
    the side, is where the points lie on average in the squares that the model was trained on. By
    `label_shift`, a share of the side, all points lie to the right of what they mark, since their labels do.
    The network's scales count `scale_factor` times, so that its confidence holds for faces that it has not
    seen; those that an ONNX file gives are multiplied already.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    format: Literal[1] = 1
    arch: str
    head: dict[str, Any]
    channels: Literal[1, 3]
    input_size: int = Field(ge=1, le=4096)
    mean: list[float]
    std: list[float]
    landmarks: Schema = Field(alias="schema")
    mean_face: list[tuple[float, float]] | None = None
    label_shift: float = Field(0.0, gt=-0.5, lt=0.5)
    scale_factor: float = Field(default=1.0, gt=0, allow_inf_nan=False)
    recipe: dict[str, Any] = {}
    metrics: dict[str, Any] = {}
    created: str = Field(default_factory=lambda: datetime.now(timezone.utc).isoformat(timespec="seconds"))
    package_version: str = __version__
    points_scale: str = "the network's x and y are scaled so that the image's edges lie at -1 and 1"

    @model_validator(mode="after")
    def _normalisation_fits(self) -> ModelHeader:
        if len(self.mean) != self.channels or len(self.std) != self.channels or min(self.std) <= 0:
            raise ValueError(f"mean and std need {self.channels} values, those of std above 0")
        if self.mean_face is not None and len(self.mean_face) != len(self.landmarks):
            raise ValueError(f"mean_face needs {len(self.landmarks)} points")
        return self

    def to_dict(self) -> dict[str, Any]:
        """Return the header as JSON's own types: for a file's metadata or a learner's `header`."""
        return self.model_dump(mode="json", by_alias=True)

    @classmethod
    def from_dict(cls, entries: Mapping[str, Any], path: Path) -> ModelHeader:
        """Check what `to_dict` gave; `path` is for the message.

        Raises
        ------
        UserError
            If the header is of a newer format, or is damaged.
        """
        version = entries.get("format")
        if isinstance(version, int) and version > FORMAT:
            raise UserError(
                f"{path}: a model of format {version}, and landmarks-fastai {__version__} reads up to "
                f"{FORMAT}; update landmarks-fastai"
            )
        try:
            return cls.model_validate(entries)
        except ValidationError as error:
            first = error.errors()[0]
            where = ".".join(str(part) for part in first["loc"])
            raise UserError(f"{path}: the header is damaged: {where} {first['msg']}") from error
        except LandmarksError as error:
            raise UserError(f"{path}: the header is damaged: {error}") from error


@dataclass(frozen=True)
class LoadedModel:
    """An opened model file: either torch's `network` or ONNX Runtime's `session` stands in it.

    `network` maps (B, C, S, S) normalised images to (B, K, 2) scaled points, in eval mode, on the CPU.
    `session` maps "image", (B, C, S, S) float32 of 0 to 255, to "points", (B, K, 2) pixels of the input,
    and, where the model knows them, to "scales", (B, K).
    """

    path: Path
    header: ModelHeader
    network: nn.Module | None = None
    session: Any = None


def save_model(
    path: str | Path, state_dict: Mapping[str, Tensor], header: ModelHeader, half: bool = False
) -> None:
    """Write weights and header as one safetensors file, wholly or not at all.

    With `half`, what is multiplied with is kept at half precision; the few numbers of biases and of batch
    normalisation stay whole.

    Raises
    ------
    RunError
        If the file can't be written, as on a full disk.
    """
    from safetensors.torch import save

    # safetensors refuses tensors that share memory
    weights = {name: tensor.detach().cpu().contiguous().clone() for name, tensor in state_dict.items()}
    if half:
        weights = {name: tensor.half() if tensor.ndim > 1 else tensor for name, tensor in weights.items()}
    whole = save(weights, metadata={"format": "pt", HEADER_KEY: json.dumps(header.to_dict())})
    with replacing(Path(path)) as part:
        part.write_bytes(whole)  # safetensors' own save_file lets nobody but its owner read the file


def open_model(path: str | Path, trust_pickle: bool = False, device: str = "auto") -> LoadedModel:
    """Open a model file, or the one in a run folder. Only a trusted .pkl can run code of its own.

    Parameters
    ----------
    path
        A ``.safetensors`` or ``.onnx`` file of ours, a run folder, a released model's name, or fastai's
        ``.pkl``.
    trust_pickle
        Open a ``.pkl``.
    device
        Where an ONNX session shall run: "auto", "cpu" or "cuda". Torch's networks stay on the CPU.

    Raises
    ------
    UserError
        If the file is missing, empty, cut off, from elsewhere, of a newer format, a ``.pkl`` that was not
        declared trusted, or has weights that don't fit its header.
    """
    path = resolve_model(path)
    if path.stat().st_size == 0:
        raise UserError(f"{path}: the file is empty (0 bytes); get a whole copy")
    suffix = path.suffix.lower()
    if suffix == ".safetensors":
        return _open_safetensors(path)
    if suffix == ".onnx":
        return _open_onnx(path, device)
    if suffix == ".pkl" and trust_pickle:
        return _open_pickle(path)
    if suffix == ".pkl":
        raise UserError(
            f"{path}: a .pkl can run any code when opened; use the {MODEL_NAME} beside it, or pass "
            "--trust-pickle if you trust who made it"
        )
    raise UserError(f"{path}: not a model of landmarks-fastai, which are .safetensors, .onnx and .pkl files")


def newest_models(runs: str | Path) -> list[Path]:
    """Return the ``model.safetensors`` of the run in `runs` that was written last, or those of all its folds.

    Raises
    ------
    UserError
        If no run has one, or not every fold.
    """
    newest = find_models(runs)[0].parent
    return resolve_models([newest if newest.parent == Path(runs) else newest.parent])


def find_models(runs: str | Path) -> list[Path]:
    """Return the ``model.safetensors`` of every run and fold in `runs`, the one that was written last first.

    Raises
    ------
    UserError
        If no run has one.
    """
    models = _trained_models(Path(runs))
    if not models:
        raise UserError(f"{runs}: no trained model here; train one: landmarks-fastai train --config quick")
    return sorted(models, key=lambda path: path.stat().st_mtime_ns, reverse=True)


def _trained_models(runs: Path) -> list[Path]:
    places = (f"*/{MODEL_NAME}", f"*/fold-*/{MODEL_NAME}")
    return [path for place in places for path in runs.glob(place) if path.is_file()]


def released_models() -> list[Path]:
    """Return the models that come with the package: the one that is used where none is named, then others."""
    return sorted(RELEASED.glob("*.safetensors"))


def default_models(runs: str | Path) -> list[Path]:
    """Return what `newest_models` does, or the released ResNet18 where nothing was trained yet.

    Raises
    ------
    UserError
        As `newest_models`; also where there is neither.
    """
    released = released_models()
    return newest_models(runs) if _trained_models(Path(runs)) or not released else released[:1]


def known_models(runs: str | Path) -> list[Path]:
    """Return all that there is to choose from: what was trained, the newest first, then what was released.

    Raises
    ------
    UserError
        If there is neither.
    """
    released = released_models()
    return [*(find_models(runs) if _trained_models(Path(runs)) or not released else []), *released]


def resolve_models(paths: Sequence[str | Path]) -> list[Path]:
    """Return the model files that `paths` mean; a folder with fold-1, fold-2 … means all of these.

    Raises
    ------
    UserError
        If one is missing, or named twice.
    """
    models: list[Path] = []
    for path in map(Path, paths):
        for model in map(resolve_model, _folds(path) or [path]):
            if model in models:
                raise UserError(f"{model}: named twice; it would only count for more")
            models.append(model)
    return models


def _folds(folder: Path) -> list[Path]:
    """Return a run's folds in their order; none where the run itself has a model."""
    if (folder / MODEL_NAME).is_file():
        return []
    folds = [path for path in folder.glob("fold-*") if path.name.removeprefix("fold-").isdigit()]
    return sorted(folds, key=lambda path: int(path.name.removeprefix("fold-")))


def resolve_model(path: str | Path) -> Path:
    """Return the model file that `path` means: a file, a run folder, or the name of a released model.

    Raises
    ------
    UserError
        If there is none.
    """
    path = Path(path)
    if path.is_dir():
        model = path / MODEL_NAME
        if not model.is_file():
            raise UserError(f"{path}: no {MODEL_NAME} in this folder; name a run that has ended")
        return model
    if path.is_file():
        return path
    released = {model.stem: model for model in released_models()}
    if str(path) in released:
        return released[str(path)]
    others = f", or name a released one: {', '.join(released)}" if released else ""
    raise UserError(f"{path}: no such model file; train one: landmarks-fastai train --config quick{others}")


def _open_safetensors(path: Path) -> LoadedModel:
    """Read header and weights; nothing in the file is run."""
    from safetensors import SafetensorError, safe_open
    from safetensors.torch import load_file

    try:
        with safe_open(path, framework="pt") as file:
            metadata = file.metadata() or {}
        header = _own_header(metadata, path)
        return LoadedModel(path, header, _network(header, load_file(path), path))
    except (SafetensorError, OSError) as error:
        raise UserError(f"{path}: not a safetensors file, or cut off ({error}); get a whole copy") from error


def _open_onnx(path: Path, device: str) -> LoadedModel:
    """Start an ONNX session and read the header from its metadata."""
    try:
        import onnxruntime
    except ImportError as error:
        raise UserError(f"{path}: an .onnx file needs ONNX Runtime: pip install onnxruntime") from error

    providers = _onnx_providers(device, onnxruntime.get_available_providers())
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 4  # what goes wrong is raised; the log would only say it twice
    try:
        # as bytes, so that a file can't make the runtime read others beside it
        session = onnxruntime.InferenceSession(path.read_bytes(), options, providers=providers)
    except Exception as error:  # each of its status codes has a class, right below Exception
        raise UserError(f"{path}: not an ONNX file, or cut off; get a whole copy") from error
    header = _own_header(session.get_modelmeta().custom_metadata_map, path)
    shapes = {port.name: port.shape[1:] for port in (*session.get_inputs(), *session.get_outputs())}
    side, count = header.input_size, len(header.landmarks)
    wanted = {"image": [header.channels, side, side], "points": [count, 2]}
    if shapes not in (wanted, {**wanted, "scales": [count]}):
        raise UserError(f"{path}: inputs and outputs {shapes} don't fit the header; export it again")
    return LoadedModel(path, header, session=session)


def _onnx_providers(device: str, available: list[str]) -> list[str]:
    """Choose where ONNX Runtime computes."""
    cpu, cuda = "CPUExecutionProvider", "CUDAExecutionProvider"
    if device == "cpu" or (device == "auto" and cuda not in available):
        return [cpu]
    if device in ("auto", "cuda"):
        if cuda not in available:
            raise UserError(
                "device 'cuda': this ONNX Runtime has none; pip install onnxruntime-gpu or use cpu"
            )
        return [cuda, cpu]
    raise UserError(f"device {device!r}: an .onnx file runs on auto, cpu or cuda")


def _open_pickle(path: Path) -> LoadedModel:
    """Open fastai's export of our learner: runs whatever code the file holds."""
    with warnings.catch_warnings():
        # fastai warns that a pickle can run any code, which the user has just been told
        warnings.simplefilter("ignore")
        from fastai.learner import load_learner

        try:
            learner = load_learner(path, cpu=True)
        except Exception as error:  # unpickling raises whatever the pickled classes raise
            raise UserError(f"{path}: not an export of a learner, or cut off ({_one_line(error)})") from error
    header = getattr(learner, "header", None)
    if not isinstance(header, dict):
        raise UserError(f"{path}: a learner of another program; landmarks-fastai can't know its points")
    checked = ModelHeader.from_dict(header, path)
    return LoadedModel(path, checked, _network(checked, learner.model.state_dict(), path))


def _own_header(metadata: Mapping[str, str], path: Path) -> ModelHeader:
    """Read our header out of a file's metadata."""
    if HEADER_KEY not in metadata:
        raise UserError(f"{path}: a model of another program, not of landmarks-fastai")
    try:
        entries = json.loads(metadata[HEADER_KEY])
    except json.JSONDecodeError as error:
        raise UserError(f"{path}: the header is damaged: {error}") from error
    if not isinstance(entries, dict):
        raise UserError(f"{path}: the header is damaged: not a JSON object")
    return ModelHeader.from_dict(entries, path)


def _network(header: ModelHeader, weights: Mapping[str, Tensor], path: Path) -> nn.Module:
    """Build the network that the header tells of and fill it with weights that fit to the last one."""
    from landmarks_fastai.network import build_network

    try:
        network = build_network(header.arch, header.head, len(header.landmarks), header.channels)
    except UserError as error:
        raise UserError(f"{path}: {error}") from error
    wanted = network.state_dict()
    for name in sorted({*wanted, *weights}):
        have, want = (tuple(group[name].shape) if name in group else "missing" for group in (weights, wanted))
        if have != want:
            raise UserError(
                f"{path}: the weights don't fit the header: {name} is {have} and {header.arch} needs {want}"
            )
    network.load_state_dict(weights)
    return network.eval()


def _one_line(error: Exception) -> str:
    """Return an error's text without its line breaks."""
    return " ".join(str(error).split())[:200] or type(error).__name__

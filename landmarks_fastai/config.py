"""A recipe: typed, checked, read from YAML, overridden from the command line.

Every option is declared and documented here and nowhere else. Knows nothing about how one acts.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any, Literal, Union, get_args, get_origin

import yaml
from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, ValidationError, model_validator

from landmarks_fastai.errors import UserError, nearest

RECIPES = Path(__file__).resolve().parent.parent / "configs"
if not RECIPES.is_dir():  # installed as a wheel: the recipes travel inside the package
    RECIPES = Path(__file__).resolve().parent / "configs"


class Options(BaseModel):
    """A group of options: a key that is not one of them is an error, and none changes later."""

    model_config = ConfigDict(extra="forbid", frozen=True, validate_default=True)


def _named(value: object) -> object:
    """Let ``head: linear`` stand for ``head: {name: linear}``."""
    return {"name": value} if isinstance(value, str) else value


# --- model ---------------------------------------------------------------------------------------


class LinReluLinHead(Options):
    """Global average pooling, Linear, ReLU, Linear: the origin's head."""

    name: Literal["lin-relu-lin"] = "lin-relu-lin"
    hidden: int = Field(256, ge=1, description="width of the hidden layer")


class LinearHead(Options):
    """Global average pooling and one Linear."""

    name: Literal["linear"] = "linear"


class SoftArgmaxHead(Options):
    """A heatmap for each point over the fused stages, and its mean."""

    name: Literal["soft-argmax"] = "soft-argmax"
    width: int = Field(64, ge=1, description="channels of the fused stages")


class SimCCHead(Options):
    """For each point the chances of fine cells along x and along y over the fused stages, and their means."""

    name: Literal["simcc"] = "simcc"
    width: int = Field(64, ge=1, description="channels of the fused stages")


Head = Annotated[
    Union[LinReluLinHead, LinearHead, SoftArgmaxHead, SimCCHead],
    Field(discriminator="name"),
    BeforeValidator(_named),
]


class Model(Options):
    """The network."""

    arch: str = Field("resnet18", description="any ResNet of torchvision: resnet18, resnet34, resnet50 …")
    head: Head = LinReluLinHead()
    input_size: int = Field(96, ge=32, le=1024, description="side of the square that the network sees, px")
    pretrained: bool = Field(False, description="start from ImageNet weights (fetched once; needs a network)")
    start: str | None = Field(
        None, description="begin with this model's weights, as far as they fit; a deeper ResNet grows from it"
    )
    confidence: bool = Field(True, description="learn beside each point how far off it may be")
    two_schemes: bool = Field(
        False,
        description="incomplete rows are labelled by a rule of their own: learn both, answer by the other",
    )

    @model_validator(mode="after")
    def _consistent(self) -> Model:
        if self.pretrained and self.start is not None:
            raise ValueError("start and pretrained both say what to begin with; leave one of them out")
        return self


# --- data ----------------------------------------------------------------------------------------


class Data(Options):
    """Where the faces come from and how they are split."""

    source: str = Field("kaggle", description="kaggle, synthetic, or a path (zip, CSV or folder)")
    count: int | None = Field(
        None, ge=2, description="how many faces to draw (synthetic only; 1,000 if unset)"
    )
    size: int | None = Field(
        None, ge=32, le=1024, description="side that own images are kept at, px (128 if unset)"
    )
    frame: Literal["points", "image"] | None = Field(
        None, description="own images: the square around the points, or the centred square (points if unset)"
    )
    fixes: str | None = Field(None, description="a CSV of corrected labels (`data --audit` begins one)")
    limit: int | None = Field(None, ge=2, description="keep so many rows, drawn at random by the seed")
    complete_only: bool = Field(False, description="drop rows with a missing point")
    multiplier: int = Field(1, ge=1, le=10_000, description="how often each face comes in an epoch")
    split: Literal["grouped", "random"] = Field(
        "grouped", description="grouped keeps near-duplicates together"
    )
    valid_fraction: float = Field(0.2, gt=0, lt=1, description="share of the rows kept for validation")
    folds: int | None = Field(None, ge=2, description="so many runs, each row validated by one of them")
    fold: int | None = Field(None, ge=1, description="the one of these runs that is meant, from 1")

    @model_validator(mode="after")
    def _consistent(self) -> Data:
        if self.fold is not None and (self.folds is None or self.fold > self.folds):
            raise ValueError(f"fold {self.fold} is none of folds {self.folds or '(unset)'}; mend one of them")
        if self.folds is not None and self.valid_fraction != Data.model_fields["valid_fraction"].default:
            raise ValueError("valid_fraction does nothing with folds; remove one of them")
        return self


# --- augmentation --------------------------------------------------------------------------------


class NoAugment(Options):
    """The faces as they are."""

    name: Literal["none"] = "none"


class OriginAugment(Options):
    """What the origin did: strong, and over the whole circle."""

    name: Literal["origin"] = "origin"
    jitter: float = Field(
        0.5, ge=0, le=1, description="brightness, contrast, saturation and hue, ± this share"
    )
    sharpness: float = Field(2.0, ge=0, description="sharpness factor, drawn from 0 to this")
    erase: float = Field(
        0.02, ge=0, le=1, description="share of the image that is erased, from half of this up"
    )
    crop: float = Field(30 / 224, ge=0, lt=1, description="share of the side that is cropped away at most")
    rotate: float = Field(180.0, ge=0, le=180, description="± degrees")
    noise_fill: float = Field(
        0.25, ge=0, le=1, description="how often the frame is noise, not repeated edges"
    )


class StandardAugment(Options):
    """Moderate, for faces that stand upright; `hard` adds what a camera outdoors may show."""

    name: Literal["standard"] = "standard"
    rotate: float = Field(20.0, ge=0, le=180, description="± degrees")
    scale: float = Field(0.15, ge=0, lt=1, description="± share of the size, in the logarithm")
    shift: float = Field(0.08, ge=0, lt=1, description="± share of the side")
    flip: float = Field(0.5, ge=0, le=1, description="how often the face is mirrored")
    label_shift: float | None = Field(
        None,
        gt=-0.5,
        lt=0.5,
        description="how far labels lie right of what they mark, share of the side; unset: found in training",
    )
    light: float = Field(0.15, ge=0, le=1, description="± brightness, as a share of white")
    contrast: float = Field(0.4, ge=0, description="± contrast, in the logarithm")
    blur: float = Field(0.2, ge=0, le=1, description="how often the face is blurred")
    erase: float = Field(0.3, ge=0, le=1, description="how often a rectangle is erased")
    hard: float = Field(
        0.0, ge=0, le=1, description="how often it is not moderate: far tilted, dark, blurred, noisy, covered"
    )


Augment = Annotated[
    Union[NoAugment, OriginAugment, StandardAugment], Field(discriminator="name"), BeforeValidator(_named)
]


# --- training ------------------------------------------------------------------------------------


class L1Loss(Options):
    """Mean absolute error."""

    name: Literal["l1"] = "l1"


class MSELoss(Options):
    """Mean squared error."""

    name: Literal["mse"] = "mse"


class SmoothL1Loss(Options):
    """Squared near zero, absolute beyond `beta` (Girshick 2015, Fast R-CNN, eq. 3)."""

    name: Literal["smooth_l1"] = "smooth_l1"
    beta: float = Field(0.01, gt=0, description="where it turns from squared to absolute, share of the side")


class WingLoss(Options):
    """Logarithmic near zero, absolute beyond `width` (Feng et al. 2018, Wing Loss, eq. 5)."""

    name: Literal["wing"] = "wing"
    width: float = Field(0.05, gt=0, description="w, share of the side")
    curvature: float = Field(0.01, gt=0, description="ε, share of the side")


class LaplaceLoss(Options):
    """Negative log-likelihood of a Laplace distribution, whose scale the network tells of each point."""

    name: Literal["laplace"] = "laplace"


Loss = Annotated[
    Union[L1Loss, MSELoss, SmoothL1Loss, WingLoss, LaplaceLoss],
    Field(discriminator="name"),
    BeforeValidator(_named),
]


class AdamOptimizer(Options):
    """Adam with its weight decay in the gradient (Kingma & Ba 2015)."""

    name: Literal["adam"] = "adam"
    weight_decay: float = Field(0.0, ge=0)


class AdamWOptimizer(Options):
    """Adam with decoupled weight decay (Loshchilov & Hutter 2019)."""

    name: Literal["adamw"] = "adamw"
    weight_decay: float = Field(0.01, ge=0)


Optimizer = Annotated[
    Union[AdamOptimizer, AdamWOptimizer], Field(discriminator="name"), BeforeValidator(_named)
]


class CyclicSchedule(Options):
    """Up and down between two rates, by the iteration (Smith 2017); equal to torch's CyclicLR."""

    name: Literal["cyclic"] = "cyclic"
    mode: Literal["triangular", "triangular2", "exp_range"] = "exp_range"
    base_lr: float = Field(0.0001, gt=0, description="lowest rate")
    max_lr: float = Field(0.012, gt=0, description="highest rate")
    step_up: int = Field(2000, ge=1, description="iterations from the lowest to the highest rate")
    step_down: int | None = Field(None, ge=1, description="iterations back (step_up if unset)")
    gamma: float | None = Field(
        None, gt=0, le=1, description="shrinks the range each iteration; exp_range only"
    )

    @model_validator(mode="after")
    def _consistent(self) -> CyclicSchedule:
        if self.gamma is not None and self.mode != "exp_range":
            raise ValueError(
                f"gamma acts in mode exp_range only, not in {self.mode}; remove it, or set it to null"
            )
        if self.base_lr > self.max_lr:
            raise ValueError("base_lr is above max_lr")
        return self


class OneCycleSchedule(Options):
    """Up once and down once, by cosines (Smith & Topin 2018); equal to fastai's fit_one_cycle."""

    name: Literal["one_cycle"] = "one_cycle"
    max_lr: float = Field(0.003, gt=0, description="highest rate")
    div: float = Field(25.0, gt=0, description="the first rate is max_lr / div")
    div_final: float = Field(1e5, gt=0, description="the last rate is max_lr / div_final")
    pct_start: float = Field(0.25, gt=0, lt=1, description="share of the run before the highest rate")


class FlatCosSchedule(Options):
    """Flat, then down by a cosine; equal to fastai's fit_flat_cos."""

    name: Literal["flat_cos"] = "flat_cos"
    max_lr: float = Field(0.003, gt=0, description="the flat rate")
    div_final: float = Field(1e5, gt=0, description="the last rate is max_lr / div_final")
    pct_start: float = Field(0.75, gt=0, lt=1, description="share of the run that is flat")


Schedule = Annotated[
    Union[CyclicSchedule, OneCycleSchedule, FlatCosSchedule],
    Field(discriminator="name"),
    BeforeValidator(_named),
]


class Training(Options):
    """How the network learns."""

    epochs: int = Field(20, ge=1)
    batch_size: int = Field(64, ge=1)
    loss: Loss = L1Loss()
    optimizer: Optimizer = AdamWOptimizer()
    schedule: Schedule = OneCycleSchedule()
    ema: float = Field(
        0.0, ge=0, lt=1, description="decay of the moving average of weights that is kept; 0: off"
    )
    precision: Literal["auto", "fp32", "bf16"] = Field(
        "auto", description="auto: bf16 where the device is fast at it"
    )
    device: str = Field("auto", description="auto, cpu, cuda, cuda:1, mps")
    workers: int = Field(0, ge=0, description="processes that make batches; 0: the training process itself")
    checkpoint_every: int = Field(5, ge=1, description="epochs between checkpoints")
    patience: int | None = Field(
        None, ge=1, description="stop after so many epochs without a better valid loss"
    )
    tensorboard: bool = Field(False, description="log to RUN/tensorboard (needs the package tensorboard)")
    wandb: str | None = Field(
        None, description="log to this Weights & Biases project (needs the package wandb)"
    )


class Recipe(Options):
    """All that decides the outcome of a run."""

    seed: int = Field(0, ge=0, lt=2**32)
    model: Model = Model()
    data: Data = Data()
    augment: Augment = StandardAugment()
    training: Training = Training()

    @model_validator(mode="after")
    def _consistent(self) -> Recipe:
        if isinstance(self.training.loss, LaplaceLoss) and not self.model.confidence:
            raise ValueError("training.loss: laplace needs the points' scales; set model.confidence=true")
        return self


# --- reading -------------------------------------------------------------------------------------


def recipe_names() -> list[str]:
    """Return the names of the recipes that come with the package."""
    return sorted(path.stem for path in RECIPES.glob("*.yaml"))


def load_recipe(
    config: str, overrides: Mapping[str, object] | None = None, settings: Sequence[str] = ()
) -> Recipe:
    """Read a recipe, lay the command line's options over it and check the whole.

    Parameters
    ----------
    config
        The name of a recipe in `configs/` or the path of a YAML file.
    overrides
        Dotted keys and values from dedicated options: ``{"training.epochs": 5}``.
    settings
        ``key.sub=value`` texts, the value in YAML: ``["training.schedule=flat_cos"]``.

    Raises
    ------
    UserError
        If the file can't be read or a key or value is wrong; names it and the nearest known one.
    """
    path = _find(config)
    origin = str(path) if path.suffix and path.parent != RECIPES else f"recipe {config}"
    # every default written out, so that an option of an unnamed part finds the part it belongs to
    entries = check_recipe(_read_yaml(path), origin).model_dump()
    for key, value in (overrides or {}).items():
        _put(entries, key, value, f"option {key}")
    for setting in settings:
        key, equals, text = setting.partition("=")
        if not equals or not key:
            raise UserError(f"--set {setting}: write it as key.sub=value, such as training.epochs=5")
        try:
            _put(entries, key, yaml.safe_load(text), f"--set {setting}")
        except yaml.YAMLError:
            raise UserError(f"--set {setting}: the value is not YAML") from None
    return check_recipe(entries, origin)


def check_recipe(entries: object, origin: str) -> Recipe:
    """Turn plain entries into a Recipe, or name the first thing that is wrong with them.

    Raises
    ------
    UserError
        In one line: where it stands, what is wrong, and the nearest key or value that is known.
    """
    if not isinstance(entries, dict):
        raise UserError(
            f"{origin}: a recipe is a YAML mapping with the keys {', '.join(Recipe.model_fields)}"
        )
    try:
        return Recipe.model_validate(entries)
    except ValidationError as error:
        raise UserError(f"{origin}: {_explain(error)}") from error


def dump_recipe(recipe: Recipe) -> str:
    """Return the whole recipe as YAML, every default written out."""
    # in ASCII: raw, some characters that a path may hold (U+0085) would be read back as line breaks
    return yaml.safe_dump(recipe.model_dump(), sort_keys=False)


def _find(config: str) -> Path:
    path = Path(config)
    if path.suffix in (".yaml", ".yml") or path.parent != Path("."):
        if not path.is_file():
            raise UserError(
                f"{config}: no such recipe file; recipes that come along: {', '.join(recipe_names())}"
            )
        return path
    named = RECIPES / f"{config}.yaml"
    if not named.is_file():
        raise UserError(f"no recipe is called {config!r}; {nearest(config, recipe_names())}")
    return named


class _Loader(yaml.SafeLoader):
    """YAML's own loader takes the last of two equal keys and drops the other silently."""

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Any, Any]:
        """Refuse a key that stands twice."""
        keys = [key.value for key, _ in node.value]
        for number, (key, _) in enumerate(node.value):
            if key.value in keys[:number]:
                raise yaml.constructor.ConstructorError(
                    problem=f"the key {key.value!r} stands twice", problem_mark=key.start_mark
                )
        return super().construct_mapping(node, deep)


def _read_yaml(path: Path) -> dict[str, Any]:
    try:
        entries = yaml.load(path.read_text(encoding="utf-8"), Loader=_Loader)
    except (OSError, UnicodeDecodeError) as error:
        raise UserError(f"{path}: can't be read: {error}") from error
    except yaml.YAMLError as error:
        mark = getattr(error, "problem_mark", None)
        line = f" at line {mark.line + 1}" if mark else ""
        raise UserError(f"{path}: can't be read as YAML{line}: {getattr(error, 'problem', error)}") from error
    if entries is None:  # nothing but comments: all defaults
        return {}
    if not isinstance(entries, dict):
        raise UserError(f"{path}: a recipe is a YAML mapping with the keys {', '.join(Recipe.model_fields)}")
    return entries


def _put(entries: dict[str, Any], key: str, value: object, origin: str) -> None:
    """Set ``a.b.c`` in nested mappings; another name clears the options of the part that had the old one.

    A word in place of a part stands for the part of that name, whose options may then be set too.
    """
    *parents, last = key.split(".")
    place = entries
    for parent in parents:
        below = place.get(parent, {})
        if not isinstance(below, dict):
            raise UserError(f"{origin}: {parent} is a value and has no key {last!r} below it")
        place = place.setdefault(parent, below)
    if last == "name" and place.get("name") != value:
        place.clear()
    place[last] = _named(value) if isinstance(place.get(last), dict) else value


def _explain(error: ValidationError) -> str:
    """Say the first error in one line."""
    first = error.errors()[0]
    # discriminated unions put the chosen name into the location: no key of ours, so it is left out
    path = _own_keys(first["loc"])
    where = ".".join(path)
    if first["type"] == "extra_forbidden":
        return f"{where}: no such key; {nearest(path[-1], _known_keys(path[:-1], first['loc']))}"
    if first["type"] == "union_tag_invalid":
        context = first["ctx"]
        names = str(context["expected_tags"]).replace("'", "").split(", ")
        return f"{where}: nothing is called {context['tag']!r}; {nearest(str(context['tag']), names)}"
    if first["type"] == "union_tag_not_found":
        return f"{where}: needs a name"
    if first["type"] == "literal_error":
        allowed = str(first["ctx"]["expected"]).replace("'", "").replace(" or ", ", ").split(", ")
        return f"{where}: {first['input']!r} is not possible; {nearest(str(first['input']), allowed)}"
    message = first["msg"].removeprefix("Value error, ")
    return (
        f"{where}: {message} (got {first['input']!r})"
        if first["type"] != "value_error"
        else f"{where}: {message}"
    )


def _own_keys(location: Sequence[int | str]) -> list[str]:
    """Drop the union tags from pydantic's location."""
    keys: list[str] = []
    kind: Any = Recipe
    for part in location:
        if isinstance(kind, dict):
            kind = kind.get(part)
            continue
        keys.append(str(part))
        kind = _below(kind, str(part))
    return keys


def _known_keys(path: Sequence[str], location: Sequence[int | str]) -> list[str]:
    """Return the keys that are legal at `path`."""
    kind: Any = Recipe
    for part in location[:-1]:
        kind = kind.get(part) if isinstance(kind, dict) else _below(kind, str(part))
    return list(kind.model_fields) if kind is not None and not isinstance(kind, dict) else list(path)


def _below(kind: type[BaseModel] | None, key: str) -> Any:
    """Return the group of options that `key` holds: a class, a dict by name for a union, or None."""
    if kind is None or key not in kind.model_fields:
        return None
    annotation = kind.model_fields[key].annotation
    if get_origin(annotation) is Union:
        groups = [
            part for part in get_args(annotation) if isinstance(part, type) and issubclass(part, Options)
        ]
        return {str(group.model_fields["name"].default): group for group in groups} or None
    return annotation if isinstance(annotation, type) and issubclass(annotation, BaseModel) else None

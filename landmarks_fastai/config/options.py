"""The options of a training config, with types, defaults and descriptions.

The defaults are what we recommend. Every option is declared here only: `--set`, the YAML files and the
reference page of the documentation are derived from these classes.

To add a head, loss, schedule or augmentation:

1. Add a class of its options, with a `name`, here.
2. Add the class to the union of its kind below.
3. Add the function or module that implements it to the dictionary of its kind: `HEADS`, `LOSSES`,
   `SCHEDULES` or `AUGMENTATIONS`.

Optimizers are created in `training/learner.py`.
"""

from __future__ import annotations

from typing import Annotated, Literal, Union

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, model_validator


class Options(BaseModel):
    """Immutable group of options; unknown keys are errors."""

    model_config = ConfigDict(extra="forbid", frozen=True, validate_default=True)


def expand_name(value: object) -> object:
    """Expand the short form ``head: linear`` to ``head: {name: linear}``."""
    return {"name": value} if isinstance(value, str) else value


# --- model ---------------------------------------------------------------------------------------


class LinReluLinConfig(Options):
    """Global average pooling, Linear, ReLU, Linear: the head of the original config."""

    name: Literal["lin-relu-lin"] = "lin-relu-lin"
    hidden: int = Field(256, ge=1, description="width of the hidden layer")


class LinearConfig(Options):
    """Global average pooling and one Linear layer."""

    name: Literal["linear"] = "linear"


class SoftArgmaxConfig(Options):
    """One heatmap per landmark, from the fused stages; the landmark is its expected position."""

    name: Literal["soft-argmax"] = "soft-argmax"
    width: int = Field(64, ge=1, description="number of channels of the fused stages")


class SimCCConfig(Options):
    """One distribution per landmark and axis over sub-pixel bins; its expected value is the coordinate."""

    name: Literal["simcc"] = "simcc"
    width: int = Field(64, ge=1, description="number of channels of the fused stages")


HeadConfig = Annotated[
    Union[LinReluLinConfig, LinearConfig, SoftArgmaxConfig, SimCCConfig],
    Field(discriminator="name"),
    BeforeValidator(expand_name),
]


class ModelConfig(Options):
    """The network."""

    arch: str = Field("resnet18", description="any torchvision ResNet: resnet18, resnet34, resnet50 …")
    head: HeadConfig = Field(SimCCConfig(), description="maps the features to landmarks")
    input_size: int = Field(64, ge=32, le=1024, description="side of the network input, px")
    pretrained: bool = Field(
        False, description="initialize from ImageNet weights (downloaded once, needs an internet connection)"
    )
    init_from: str | None = Field(
        None,
        description="initialize from the weights of another model, where they fit: a run folder, a model file"
        " or a released model; the new network may be deeper",
    )
    confidence: bool = Field(True, description="also predict the expected error of each landmark")
    visibility: bool = Field(
        True, description="also predict visibility, if training labels are both occluded and visible"
    )
    two_protocols: bool = Field(
        False,
        description="incomplete rows follow another annotation protocol: learn both, predict that of the"
        " complete rows",
    )

    @model_validator(mode="after")
    def _check_initialization(self) -> ModelConfig:
        if self.pretrained and self.init_from is not None:
            raise ValueError("init_from and pretrained are mutually exclusive; remove one of them")
        return self


# --- data ----------------------------------------------------------------------------------------


class DataConfig(Options):
    """The data set and how it is split."""

    source: str = Field("kaggle", description="kaggle, synthetic, or a path to labels")
    count: int | None = Field(
        None, ge=2, description="number of synthetic faces; 1,000 if unset (only for synthetic)"
    )
    occlusion: float | None = Field(
        None, ge=0, le=1, description="fraction of synthetic faces that an object covers in part; 0 if unset"
    )
    image_size: int | None = Field(
        None,
        ge=32,
        le=1024,
        description="side of the cached crops, px; 128 if unset (only for labels of image files)",
    )
    crop: Literal["landmarks", "box", "image"] | None = Field(
        None,
        description="crop around the landmarks, the square around the box of each row, or the center crop of"
        " the image; landmarks if unset (only for labels of image files)",
    )
    format: str | None = Field(None, description="format of the labels; recognized by their content if unset")
    landmark_schema: str | None = Field(
        None,
        description="file with the flip pairs, skeleton and eyes of the landmarks, or a built-in schema;"
        " recognized by the landmark names if unset (only for labels of image files)",
    )
    skip_bad: bool | None = Field(
        None,
        description="leave out rows that cannot be used, instead of ending with an error (only for labels of"
        " image files)",
    )
    corrections: str | None = Field(
        None, description="CSV of corrected labels; `data --audit` writes a template"
    )
    limit: int | None = Field(None, ge=2, description="use this many rows, sampled with the seed")
    complete_only: bool = Field(False, description="drop rows with an unlabeled landmark")
    multiplier: int = Field(1, ge=1, le=10_000, description="number of times each row is used per epoch")
    split: Literal["grouped", "random"] = Field(
        "grouped", description="grouped keeps near-duplicates on the same side of the split; random does not"
    )
    valid_fraction: float = Field(0.2, gt=0, lt=1, description="fraction of the rows used for validation")
    folds: int | None = Field(None, ge=2, description="number of cross-validation folds")
    fold: int | None = Field(None, ge=1, description="train this fold only, counted from 1")

    @model_validator(mode="after")
    def _check_folds(self) -> DataConfig:
        if self.fold is not None and (self.folds is None or self.fold > self.folds):
            raise ValueError(
                f"fold {self.fold} does not exist: folds is {self.folds or 'unset'}; change one of them"
            )
        if (
            self.folds is not None
            and self.valid_fraction != DataConfig.model_fields["valid_fraction"].default
        ):
            raise ValueError("valid_fraction has no effect with folds; remove one of them")
        return self


# --- augmentation --------------------------------------------------------------------------------


class NoAugment(Options):
    """No augmentation."""

    name: Literal["none"] = "none"


class OriginalAugment(Options):
    """The augmentation of the original config: strong, with rotation over the full circle."""

    name: Literal["original"] = "original"
    jitter: float = Field(
        0.5, ge=0, le=1, description="brightness, contrast, saturation and hue, ± this fraction"
    )
    sharpness: float = Field(2.0, ge=0, description="maximum sharpness factor; the minimum is 0")
    erase: float = Field(
        0.02,
        ge=0,
        le=1,
        description="maximum fraction of the image that is erased; the minimum is half of it",
    )
    crop: float = Field(30 / 224, ge=0, lt=1, description="maximum fraction of the side that is cropped away")
    rotate: float = Field(180.0, ge=0, le=180, description="maximum rotation, ± degrees")
    noise_fill: float = Field(
        0.25,
        ge=0,
        le=1,
        description="probability that the area outside the image is filled with noise instead of edge pixels",
    )


class StandardAugment(Options):
    """Moderate augmentation for upright faces; `hard` adds difficult examples."""

    name: Literal["standard"] = "standard"
    rotate: float = Field(20.0, ge=0, le=180, description="maximum rotation, ± degrees")
    scale: float = Field(
        0.15, ge=0, lt=1, description="maximum change of scale s: factors from 1 / (1 + s) to 1 + s"
    )
    shift: float = Field(0.08, ge=0, lt=1, description="maximum shift, ± fraction of the side")
    flip: float = Field(0.5, ge=0, le=1, description="probability of a horizontal flip")
    label_bias: float | None = Field(
        None,
        gt=-0.5,
        lt=0.5,
        description="horizontal offset of all labels, fraction of the side (positive: right); estimated"
        " during training if unset",
    )
    brightness: float = Field(
        0.15, ge=0, le=1, description="maximum change of brightness, ± fraction of white"
    )
    contrast: float = Field(
        0.4, ge=0, description="maximum change of contrast, ± natural logarithm of the factor"
    )
    blur: float = Field(0.2, ge=0, le=1, description="probability of blurring")
    erase: float = Field(0.3, ge=0, le=1, description="probability of erasing a rectangle")
    hard: float = Field(
        0.0,
        ge=0,
        le=1,
        description="probability of a hard example: strongly rotated, dark, blurred, noisy or occluded",
    )


AugmentConfig = Annotated[
    Union[NoAugment, OriginalAugment, StandardAugment],
    Field(discriminator="name"),
    BeforeValidator(expand_name),
]


# --- training ------------------------------------------------------------------------------------


class L1Config(Options):
    """Mean absolute error."""

    name: Literal["l1"] = "l1"


class MSEConfig(Options):
    """Mean squared error."""

    name: Literal["mse"] = "mse"


class SmoothL1Config(Options):
    """Squared near zero, absolute beyond `beta` (Girshick 2015, Fast R-CNN, eq. 3)."""

    name: Literal["smooth_l1"] = "smooth_l1"
    beta: float = Field(
        0.01,
        gt=0,
        description="error at which the loss changes from squared to absolute, fraction of the side",
    )


class WingConfig(Options):
    """Logarithmic near zero, absolute beyond `width` (Feng et al. 2018, Wing Loss, eq. 5)."""

    name: Literal["wing"] = "wing"
    width: float = Field(0.05, gt=0, description="w of the paper, fraction of the side")
    curvature: float = Field(0.01, gt=0, description="ε of the paper, fraction of the side")


class LaplaceConfig(Options):
    """Negative log-likelihood of a Laplace distribution with a predicted scale for each landmark."""

    name: Literal["laplace"] = "laplace"


LossConfig = Annotated[
    Union[L1Config, MSEConfig, SmoothL1Config, WingConfig, LaplaceConfig],
    Field(discriminator="name"),
    BeforeValidator(expand_name),
]


class AdamConfig(Options):
    """Adam with L2 regularization (Kingma & Ba 2015)."""

    name: Literal["adam"] = "adam"
    weight_decay: float = Field(0.0, ge=0, description="L2 coefficient")


class AdamWConfig(Options):
    """Adam with decoupled weight decay (Loshchilov & Hutter 2019)."""

    name: Literal["adamw"] = "adamw"
    weight_decay: float = Field(0.05, ge=0, description="weight decay coefficient")


OptimizerConfig = Annotated[
    Union[AdamConfig, AdamWConfig], Field(discriminator="name"), BeforeValidator(expand_name)
]


class CyclicConfig(Options):
    """Cyclical learning rate, updated every iteration (Smith 2017); equal to torch's CyclicLR."""

    name: Literal["cyclic"] = "cyclic"
    mode: Literal["triangular", "triangular2", "exp_range"] = Field(
        "exp_range", description="constant amplitude, halved each cycle, or decaying by gamma each iteration"
    )
    base_lr: float = Field(0.0001, gt=0, description="lowest learning rate")
    max_lr: float = Field(0.012, gt=0, description="highest learning rate")
    step_up: int = Field(2000, ge=1, description="iterations from the lowest to the highest learning rate")
    step_down: int | None = Field(
        None, ge=1, description="iterations from the highest to the lowest learning rate; step_up if unset"
    )
    gamma: float | None = Field(
        None, gt=0, le=1, description="decay of the amplitude per iteration; exp_range only, 1 if unset"
    )

    @model_validator(mode="after")
    def _check_rates(self) -> CyclicConfig:
        if self.gamma is not None and self.mode != "exp_range":
            raise ValueError(
                f"gamma has an effect in mode exp_range only, not in {self.mode}; remove it or set it to null"
            )
        if self.base_lr > self.max_lr:
            raise ValueError("base_lr is greater than max_lr")
        return self


class OneCycleConfig(Options):
    """One cycle with cosine annealing (Smith & Topin 2018); equal to fastai's fit_one_cycle."""

    name: Literal["one_cycle"] = "one_cycle"
    max_lr: float = Field(0.003, gt=0, description="highest learning rate")
    div: float = Field(25.0, gt=0, description="the initial learning rate is max_lr / div")
    div_final: float = Field(1e5, gt=0, description="the final learning rate is max_lr / div_final")
    pct_start: float = Field(
        0.25, gt=0, lt=1, description="fraction of the run before the highest learning rate"
    )


class FlatCosConfig(Options):
    """Constant, then cosine annealing; equal to fastai's fit_flat_cos."""

    name: Literal["flat_cos"] = "flat_cos"
    max_lr: float = Field(0.002, gt=0, description="constant learning rate")
    div_final: float = Field(1e5, gt=0, description="the final learning rate is max_lr / div_final")
    pct_start: float = Field(0.75, gt=0, lt=1, description="fraction of the run at constant learning rate")


ScheduleConfig = Annotated[
    Union[CyclicConfig, OneCycleConfig, FlatCosConfig],
    Field(discriminator="name"),
    BeforeValidator(expand_name),
]


class TrainingLoopConfig(Options):
    """The training loop."""

    epochs: int = Field(25, ge=1, description="number of epochs")
    minutes: float | None = Field(
        None,
        gt=0,
        description="time for the whole run, from reading the data to the results; the schedule and the"
        " number of epochs are fitted to it, and `epochs` has no effect",
    )
    batch_size: int = Field(32, ge=1, description="rows per iteration, of all processes together")
    loss: LossConfig = Field(LaplaceConfig(), description="loss function")
    optimizer: OptimizerConfig = Field(AdamWConfig(), description="optimizer")
    schedule: ScheduleConfig = Field(FlatCosConfig(), description="learning rate schedule")
    ema: float = Field(
        0.995,
        ge=0,
        lt=1,
        description="decay of the EMA of the weights, which is evaluated and saved; 0 disables it",
    )
    precision: Literal["auto", "fp32", "bf16"] = Field(
        "auto",
        description="auto: bf16 autocast if the device supports bf16 in hardware, else fp32; bf16 is very"
        " slow where it is emulated",
    )
    device: str = Field("auto", description="auto, cpu, cuda, cuda:1, mps")
    compile: bool = Field(
        False,
        description="compile the network with torch.compile; delays the first iteration and needs a C++"
        " compiler on a CPU, Triton on a GPU; cannot be combined with `minutes` or several processes",
    )
    reproducible: bool = Field(
        True,
        description="on a GPU, use only algorithms that give the same result in each run; false lets cuDNN"
        " choose the fastest ones",
    )
    threads: int | None = Field(
        None,
        ge=1,
        description="number of CPU threads; if unset, one per available processor, or fewer if measurements"
        " show that this is faster (not measured with `compile`)",
    )
    workers: int = Field(
        0, ge=0, description="number of data loading processes; 0 loads in the training process"
    )
    checkpoint_every: int = Field(
        1, ge=1, description="number of epochs between checkpoints; the first and the last epoch have one"
    )
    patience: int | None = Field(
        None, ge=1, description="stop after this many epochs without a lower validation loss"
    )
    tensorboard: bool = Field(False, description="log to RUN/tensorboard (needs the package tensorboard)")
    wandb: str | None = Field(
        None, description="log to this Weights & Biases project (needs the package wandb)"
    )

    @model_validator(mode="after")
    def _check_time(self) -> TrainingLoopConfig:
        if self.compile and self.minutes is not None:
            raise ValueError(
                "minutes cannot be used with compile, because the compilation would take the time of the"
                " first part of the schedule; remove one of them"
            )
        return self


class TrainConfig(Options):
    """Every setting of a training run."""

    seed: int = Field(0, ge=0, lt=2**32, description="seed of all random numbers")
    model: ModelConfig = Field(ModelConfig(), description="the network")
    data: DataConfig = Field(DataConfig(), description="the data set and its split")
    augment: AugmentConfig = Field(StandardAugment(), description="augmentation of training images")
    training: TrainingLoopConfig = Field(TrainingLoopConfig(), description="the training loop")

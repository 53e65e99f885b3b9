"""Loading configs: built-in configs, precedence of overrides, error messages, YAML round trip."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import get_args

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import BaseModel

from landmarks_fastai.config.loading import config_names, dump_config, load_config, validate_config
from landmarks_fastai.config.options import (
    AdamConfig,
    AdamWConfig,
    CyclicConfig,
    DataConfig,
    FlatCosConfig,
    L1Config,
    LaplaceConfig,
    LinearConfig,
    LinReluLinConfig,
    ModelConfig,
    MSEConfig,
    NoAugment,
    OneCycleConfig,
    OriginalAugment,
    SimCCConfig,
    SmoothL1Config,
    SoftArgmaxConfig,
    StandardAugment,
    TrainConfig,
    TrainingLoopConfig,
    WingConfig,
)
from landmarks_fastai.errors import UserError

CONFIG = """
model: {head: soft-argmax}
augment: standard
training: {loss: l1, schedule: one_cycle}
"""
"""A config that does not depend on which alternatives are the defaults."""


def write_config(folder: Path, text: str) -> str:
    path = folder / "custom.yaml"
    path.write_text(text)
    return str(path)


def option_groups(group: type[BaseModel]) -> Iterator[type[BaseModel]]:
    """Yield an option group and all groups below it, including those of unions."""
    yield group
    for field in group.model_fields.values():
        for member in (field.annotation, *get_args(field.annotation)):
            if isinstance(member, type) and issubclass(member, BaseModel):
                yield from option_groups(member)


# --- built-in configs ----------------------------------------------------------------------------


def test_config_names_are_complete_and_loadable() -> None:
    assert config_names() == [
        "default",
        "original-resnet18",
        "original-resnet34",
        "quick",
        "release-resnet18",
        "release-resnet34",
    ]
    for name in config_names():
        assert isinstance(load_config(name), TrainConfig)


def test_default_config_equals_option_defaults() -> None:
    assert load_config("default") == TrainConfig()


def test_short_config_gets_recommended_values(tmp_path: Path) -> None:
    config = load_config(write_config(tmp_path, "training:\n  epochs: 3\n"))
    assert config == TrainConfig(training=TrainingLoopConfig(epochs=3))
    assert config.model.head == SimCCConfig(width=64)
    assert config.training.loss == LaplaceConfig()
    assert config.training.optimizer == AdamWConfig(weight_decay=0.05)
    assert config.training.schedule == FlatCosConfig(max_lr=0.002)
    assert (config.model.arch, config.model.input_size) == ("resnet18", 64)
    assert (config.training.batch_size, config.training.ema) == (32, 0.995)


def test_every_option_has_description() -> None:
    groups = set(option_groups(TrainConfig))
    assert {ModelConfig, SimCCConfig, DataConfig, StandardAugment, CyclicConfig, AdamConfig} < groups
    undescribed = {
        f"{group.__name__}.{option}"
        for group in groups
        for option, field in group.model_fields.items()
        if option != "name" and not (field.description or "").strip()
    }
    assert undescribed == set()
    assert all((group.__doc__ or "").strip() for group in groups)


@pytest.mark.parametrize(
    ("arch", "batch_size", "step_up"), [("resnet18", 625, 2000), ("resnet34", 420, 2400)]
)
def test_original_config_has_values_of_original_project(arch: str, batch_size: int, step_up: int) -> None:
    config = load_config(f"original-{arch}")
    assert config.model.arch == arch
    assert config.model.head == LinReluLinConfig(hidden=256)
    assert not config.model.pretrained
    assert config.data.multiplier == 10
    assert config.augment == OriginalAugment(jitter=0.5, sharpness=2, erase=0.02, crop=30 / 224, rotate=180)
    assert config.training.loss == L1Config()
    assert config.training.optimizer == AdamWConfig(weight_decay=0.01)
    assert config.training.schedule == CyclicConfig(
        mode="exp_range", base_lr=0.0001, max_lr=0.012, step_up=step_up, gamma=0.99995
    )
    assert (config.training.epochs, config.training.batch_size) == (800, batch_size)
    assert config.training.ema == 0
    assert config.training.patience is None


# --- overrides -----------------------------------------------------------------------------------


def test_load_config_settings_override_options_and_options_override_file(tmp_path: Path) -> None:
    path = write_config(tmp_path, "training: {epochs: 1, batch_size: 2}\nseed: 3\n")
    config = load_config(path, {"training.epochs": 10, "seed": 30}, ["seed=300", "seed=301"])
    assert (config.training.batch_size, config.training.epochs, config.seed) == (2, 10, 301)


def test_load_config_new_name_discards_options_of_old_name(tmp_path: Path) -> None:
    path = write_config(
        tmp_path,
        "augment: {name: standard, rotate: 44, blur: 1}\nmodel: {head: {name: soft-argmax, width: 7}}\n",
    )
    assert load_config(path).augment == StandardAugment(rotate=44, blur=1)
    assert load_config(path, settings=["augment=original"]).augment == OriginalAugment()
    assert load_config(path, settings=["augment.name=original"]).augment == OriginalAugment()
    assert load_config(path, settings=["augment={name: none}"]).augment == NoAugment()
    assert load_config(path, settings=["model.head=linear"]).model.head == LinearConfig()
    # setting the same name keeps the options
    assert load_config(path, settings=["augment.name=standard"]).augment == StandardAugment(rotate=44, blur=1)


def test_load_config_sets_options_of_newly_named_group(tmp_path: Path) -> None:
    path = write_config(tmp_path, CONFIG)
    config = load_config(path, settings=["model.head=lin-relu-lin", "model.head.hidden=99"])
    assert config.model.head == LinReluLinConfig(hidden=99)
    config = load_config(path, {"training.schedule.max_lr": 0.5}, ["training.schedule.div=2"])
    assert config.training.schedule == OneCycleConfig(max_lr=0.5, div=2)


def test_load_config_parses_setting_values_as_yaml() -> None:
    assert load_config("quick", settings=["training.schedule.max_lr=1e-3"]).training.schedule.max_lr == 0.001
    assert load_config("quick", settings=["data.limit=null"]).data.limit is None


def test_load_config_file_with_only_comments_gives_defaults(tmp_path: Path) -> None:
    assert load_config(write_config(tmp_path, "# no option is set\n")) == TrainConfig()


# --- errors --------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("setting", "message"),
    [
        ("training.epoch=3", "training.epoch: no such key; did you mean 'epochs'?"),
        ("trainning.epochs=3", "trainning: no such key; did you mean 'training'?"),
        ("model.head=linea", "model.head: no such name 'linea'; did you mean 'linear'?"),
        ("model.head.hiden=3", "model.head.hiden: no such key; known: name, width"),
        ("augment=orgin", "augment: no such name 'orgin'; did you mean 'original'?"),
        (
            "training.loss=huber",
            "training.loss: no such name 'huber'; known: l1, laplace, mse, smooth_l1, wing",
        ),
        ("training.precision=bf61", "training.precision: invalid value 'bf61'; did you mean 'bf16'?"),
        ("data.split=groups", "data.split: invalid value 'groups'; did you mean 'grouped'?"),
        ("training.schedule.gamma=0.9", "training.schedule.gamma: no such key"),
        ("training.schedule.step_up=9", "training.schedule.step_up: no such key"),
        ("augment.jitter=0.9", "augment.jitter: no such key"),
        ("training.loss.width=1", "training.loss.width: no such key"),
        ("training.epochs=0", "training.epochs: must be at least 1 (got 0)"),
        ("training.epochs=many", "training.epochs: must be an integer (got 'many')"),
        ("data.source.name=x", "source is a single value and has no key 'name'"),
        ("training.epochs.a.b=1", "epochs is a single value and has no key 'a'"),
        ("seed=1.5", "seed: must be an integer (got 1.5)"),
        ("seed=4294967296", "seed: must be less than 4294967296"),
        ("training.ema=x", "training.ema: must be a number (got 'x')"),
        ("data.complete_only=3", "data.complete_only: must be true or false (got 3)"),
        ("data.source=2001-01-01", "data.source: must be text; put it in quotes (got datetime.date(2001, 1"),
        ("model.input_size=2000", "model.input_size: must be at most 1024 (got 2000)"),
        ("data.valid_fraction=0", "data.valid_fraction: must be greater than 0 (got 0)"),
        ("seed=2001-13-45", "--set seed=2001-13-45: the value is not valid YAML; put text in quotes"),
        (
            "training.schedule={name: cyclic, mode: triangular, gamma: 0.9}",
            "gamma has an effect in mode exp_range only, not in triangular",
        ),
        ("training.schedule={name: cyclic, base_lr: 1}", "base_lr is greater than max_lr"),
        ("data.fold=1", "data: fold 1 does not exist: folds is unset; change one of them"),
        ("data={folds: 3, fold: 4}", "data: fold 4 does not exist: folds is 3; change one of them"),
        (
            "data={folds: 3, valid_fraction: 0.1}",
            "valid_fraction has no effect with folds; remove one of them",
        ),
        ("training.epochs", "must have the form key.sub=value"),
        ("=3", "must have the form key.sub=value"),
        ("seed=[", "the value is not valid YAML"),
    ],
)
def test_load_config_invalid_setting_raises_one_line_message(
    tmp_path: Path, setting: str, message: str
) -> None:
    with pytest.raises(UserError) as error:
        load_config(write_config(tmp_path, CONFIG), settings=[setting])
    assert message in str(error.value)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("seed: 1\nmodel: [", ", line 2, column 9: not usable as YAML ("),
        ("- a\n- b\n", ": a config must be a YAML mapping with the keys seed, model"),
        ("false\n", ": a config must be a YAML mapping"),
        ("seed: 1\ndata: {}\nseed: 2\n", ", line 3, column 1: not usable as YAML (duplicate key 'seed')"),
        ("model: {head: {width: 3}}\n", ": model.head: the key 'name' is missing"),
        ("model: resnet18\n", ": model: must be a mapping of options (got 'resnet18')"),
        ("model:\n  head: linear\n  color: red\n", ": model.color: no such key; known: "),
    ],
)
def test_load_config_invalid_file_raises_one_line_message(tmp_path: Path, text: str, message: str) -> None:
    with pytest.raises(UserError) as error:
        load_config(write_config(tmp_path, text))
    assert str(error.value).startswith(f"{tmp_path / 'custom.yaml'}{message}")
    assert "\n" not in str(error.value)


def test_load_config_unknown_name_or_unreadable_file_raises(tmp_path: Path) -> None:
    with pytest.raises(
        UserError, match="no such config 'original-resnet81'; did you mean 'original-resnet18'"
    ):
        load_config("original-resnet81")
    with pytest.raises(
        UserError, match="no such config file; the built-in configs are default, original-resnet18"
    ):
        load_config(str(tmp_path / "none.yaml"))
    (tmp_path / "binary.yaml").write_bytes(b"\xff\xfe\x00\x01\x80")
    with pytest.raises(UserError, match=r"binary\.yaml: not text in UTF-8"):
        load_config(str(tmp_path / "binary.yaml"))


# --- round trip ----------------------------------------------------------------------------------


def floats(low: float, high: float) -> st.SearchStrategy[float]:
    return st.floats(low, high, allow_nan=False)


fractions = floats(0, 1)
rates = floats(1e-9, 10)
heads = st.one_of(
    st.builds(LinReluLinConfig, hidden=st.integers(1, 999)),
    st.just(LinearConfig()),
    st.builds(SoftArgmaxConfig, width=st.integers(1, 999)),
)
augments = st.one_of(
    st.just(NoAugment()),
    st.builds(OriginalAugment, jitter=fractions, rotate=floats(0, 180), noise_fill=fractions),
    st.builds(StandardAugment, rotate=floats(0, 180), flip=fractions, contrast=floats(0, 1e6)),
)
losses = st.one_of(
    st.just(L1Config()),
    st.just(MSEConfig()),
    st.builds(SmoothL1Config, beta=rates),
    st.builds(WingConfig, width=rates),
)
schedules = st.one_of(
    st.builds(
        CyclicConfig, base_lr=floats(1e-9, 1e-4), max_lr=floats(1e-4, 1), gamma=st.none() | floats(0.1, 1)
    ),
    st.builds(CyclicConfig, mode=st.sampled_from(["triangular", "triangular2"]), gamma=st.none()),
    st.builds(OneCycleConfig, max_lr=rates, pct_start=floats(0.01, 0.99)),
    st.builds(FlatCosConfig, max_lr=rates),
)
configs = st.builds(
    TrainConfig,
    seed=st.integers(0, 2**32 - 1),
    model=st.builds(ModelConfig, arch=st.text(), head=heads, input_size=st.integers(32, 1024)),
    data=st.builds(
        DataConfig, source=st.text(), limit=st.none() | st.integers(2, 10**6), complete_only=st.booleans()
    ),
    augment=augments,
    training=st.builds(
        TrainingLoopConfig,
        loss=losses,
        schedule=schedules,
        optimizer=st.builds(AdamConfig, weight_decay=fractions)
        | st.builds(AdamWConfig, weight_decay=fractions),
        wandb=st.none() | st.sampled_from(["yes", "1", "null", "ä: b", "# c"]),
    ),
)


@settings(max_examples=60)
@given(config=configs)
def test_dump_config_round_trip(tmp_path_factory: pytest.TempPathFactory, config: TrainConfig) -> None:
    path = tmp_path_factory.getbasetemp() / "round_trip.yaml"
    path.write_text(dump_config(config), encoding="utf-8")
    assert load_config(str(path)) == config
    assert validate_config(config.model_dump(), "config") == config


@pytest.mark.parametrize("source", ["a\x85b.csv", "K\u00f6ln.csv", "not utf-8 \udcff.csv", "1e3", "null"])
def test_dump_config_round_trip_of_unusual_path(tmp_path: Path, source: str) -> None:
    config = TrainConfig(data=DataConfig(source=source))
    assert load_config(write_config(tmp_path, dump_config(config))) == config

"""Recipes: the origin's numbers, what overrides what, and the line that a wrong key or value gets."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from landmarks_fastai.config import (
    AdamOptimizer,
    AdamWOptimizer,
    CyclicSchedule,
    Data,
    FlatCosSchedule,
    L1Loss,
    LinearHead,
    LinReluLinHead,
    Model,
    MSELoss,
    NoAugment,
    OneCycleSchedule,
    OriginAugment,
    Recipe,
    SmoothL1Loss,
    SoftArgmaxHead,
    StandardAugment,
    Training,
    WingLoss,
    check_recipe,
    dump_recipe,
    load_recipe,
    recipe_names,
)
from landmarks_fastai.errors import UserError

KNOWN = """
model: {head: soft-argmax}
augment: standard
training: {loss: l1, schedule: one_cycle}
"""
"""Parts that stay when the recipes that come along change theirs."""


def written(folder: Path, text: str) -> str:
    path = folder / "mine.yaml"
    path.write_text(text)
    return str(path)


# --- the recipes that come along --------------------------------------------------------------------


def test_every_recipe_loads() -> None:
    assert recipe_names() == [
        "default",
        "quick",
        "release-resnet18",
        "release-resnet34",
        "resnet18",
        "resnet34",
    ]
    for name in recipe_names():
        assert isinstance(load_recipe(name), Recipe)


@pytest.mark.parametrize(
    ("name", "batch_size", "step_up"), [("resnet18", 625, 2000), ("resnet34", 420, 2400)]
)
def test_the_origin_s_numbers_to_the_letter(name: str, batch_size: int, step_up: int) -> None:
    recipe = load_recipe(name)
    assert recipe.model.arch == name
    assert recipe.model.head == LinReluLinHead(hidden=256)
    assert not recipe.model.pretrained
    assert recipe.data.multiplier == 10
    assert recipe.augment == OriginAugment(jitter=0.5, sharpness=2, erase=0.02, crop=30 / 224, rotate=180)
    assert recipe.training.loss == L1Loss()
    assert recipe.training.optimizer == AdamWOptimizer(weight_decay=0.01)
    assert recipe.training.schedule == CyclicSchedule(
        mode="exp_range", base_lr=0.0001, max_lr=0.012, step_up=step_up, gamma=0.99995
    )
    assert (recipe.training.epochs, recipe.training.batch_size) == (800, batch_size)
    assert recipe.training.ema == 0
    assert recipe.training.patience is None


# --- what lies over what ----------------------------------------------------------------------------


def test_settings_lie_over_options_and_those_over_the_file(tmp_path: Path) -> None:
    path = written(tmp_path, "training: {epochs: 1, batch_size: 2}\nseed: 3\n")
    recipe = load_recipe(path, {"training.epochs": 10, "seed": 30}, ["seed=300", "seed=301"])
    assert (recipe.training.batch_size, recipe.training.epochs, recipe.seed) == (2, 10, 301)


def test_another_name_replaces_the_whole_part(tmp_path: Path) -> None:
    path = written(
        tmp_path,
        "augment: {name: standard, rotate: 44, blur: 1}\nmodel: {head: {width: 7}}\n".replace(
            "{width: 7}", "{name: soft-argmax, width: 7}"
        ),
    )
    assert load_recipe(path).augment == StandardAugment(rotate=44, blur=1)
    assert load_recipe(path, settings=["augment=origin"]).augment == OriginAugment()
    assert load_recipe(path, settings=["augment.name=origin"]).augment == OriginAugment()
    assert load_recipe(path, settings=["augment={name: none}"]).augment == NoAugment()
    assert load_recipe(path, settings=["model.head=linear"]).model.head == LinearHead()
    # the same name again is no other part
    assert load_recipe(path, settings=["augment.name=standard"]).augment == StandardAugment(rotate=44, blur=1)


def test_a_part_that_was_just_named_takes_its_options(tmp_path: Path) -> None:
    path = written(tmp_path, KNOWN)
    recipe = load_recipe(path, settings=["model.head=lin-relu-lin", "model.head.hidden=99"])
    assert recipe.model.head == LinReluLinHead(hidden=99)
    recipe = load_recipe(path, {"training.schedule.max_lr": 0.5}, ["training.schedule.div=2"])
    assert recipe.training.schedule == OneCycleSchedule(max_lr=0.5, div=2)


def test_a_number_in_any_way_of_writing_it() -> None:
    assert load_recipe("quick", settings=["training.schedule.max_lr=1e-3"]).training.schedule.max_lr == 0.001
    assert load_recipe("quick", settings=["data.limit=null"]).data.limit is None


def test_a_file_of_comments_is_all_defaults(tmp_path: Path) -> None:
    assert load_recipe(written(tmp_path, "# nothing yet\n")) == Recipe()


# --- what is wrong ------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("setting", "said"),
    [
        ("training.epoch=3", "training.epoch: no such key; did you mean 'epochs'?"),
        ("trainning.epochs=3", "trainning: no such key; did you mean 'training'?"),
        ("model.head=linea", "model.head: nothing is called 'linea'; did you mean 'linear'?"),
        ("model.head.hiden=3", "model.head.hiden: no such key; known: name, width"),
        ("augment=orgin", "augment: nothing is called 'orgin'; did you mean 'origin'?"),
        (
            "training.loss=huber",
            "training.loss: nothing is called 'huber'; known: l1, laplace, mse, smooth_l1, wing",
        ),
        ("training.precision=bf61", "training.precision: 'bf61' is not possible; did you mean 'bf16'?"),
        ("data.split=groups", "data.split: 'groups' is not possible; did you mean 'grouped'?"),
        ("training.schedule.gamma=0.9", "training.schedule.gamma: no such key"),
        ("training.schedule.step_up=9", "training.schedule.step_up: no such key"),
        ("augment.jitter=0.9", "augment.jitter: no such key"),
        ("training.loss.width=1", "training.loss.width: no such key"),
        ("training.epochs=0", "training.epochs: Input should be greater than or equal to 1 (got 0)"),
        ("training.epochs=many", "(got 'many')"),
        ("data.source.name=x", "source is a value and has no key 'name' below it"),
        (
            "training.schedule={name: cyclic, mode: triangular, gamma: 0.9}",
            "gamma acts in mode exp_range only",
        ),
        ("training.schedule={name: cyclic, base_lr: 1}", "base_lr is above max_lr"),
        ("data.fold=1", "data: fold 1 is none of folds (unset)"),
        ("data={folds: 3, fold: 4}", "data: fold 4 is none of folds 3"),
        ("data={folds: 3, valid_fraction: 0.1}", "valid_fraction does nothing with folds"),
        ("training.epochs", "write it as key.sub=value"),
        ("=3", "write it as key.sub=value"),
        ("seed=[", "the value is not YAML"),
    ],
)
def test_a_wrong_key_or_value_is_named(tmp_path: Path, setting: str, said: str) -> None:
    with pytest.raises(UserError) as caught:
        load_recipe(written(tmp_path, KNOWN), settings=[setting])
    assert said in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("seed: 1\nmodel: [", "can't be read as YAML at line 2"),
        ("- a\n- b\n", "a recipe is a YAML mapping with the keys seed, model"),
        ("false\n", "a recipe is a YAML mapping"),
        ("seed: 1\ndata: {}\nseed: 2\n", "can't be read as YAML at line 3: the key 'seed' stands twice"),
        ("model: {head: {width: 3}}\n", "model.head: needs a name"),
        ("model: resnet18\n", "model: "),
        ("model:\n  head: linear\n  colour: red\n", "model.colour: no such key; known: "),
    ],
)
def test_a_wrong_file_is_named(tmp_path: Path, text: str, said: str) -> None:
    with pytest.raises(UserError) as caught:
        load_recipe(written(tmp_path, text))
    assert str(caught.value).startswith(f"{tmp_path / 'mine.yaml'}: ")
    assert said in str(caught.value)


def test_a_recipe_that_there_is_not(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="no recipe is called 'resnet81'; did you mean 'resnet18'"):
        load_recipe("resnet81")
    with pytest.raises(UserError, match="no such recipe file; recipes that come along: default, quick"):
        load_recipe(str(tmp_path / "none.yaml"))
    (tmp_path / "binary.yaml").write_bytes(b"\xff\xfe\x00\x01\x80")
    with pytest.raises(UserError, match=r"binary\.yaml: can't be read"):
        load_recipe(str(tmp_path / "binary.yaml"))


# --- there and back -----------------------------------------------------------------------------------


def floats(low: float, high: float) -> st.SearchStrategy[float]:
    return st.floats(low, high, allow_nan=False)


share = floats(0, 1)
rates = floats(1e-9, 10)
heads = st.one_of(
    st.builds(LinReluLinHead, hidden=st.integers(1, 999)),
    st.just(LinearHead()),
    st.builds(SoftArgmaxHead, width=st.integers(1, 999)),
)
augments = st.one_of(
    st.just(NoAugment()),
    st.builds(OriginAugment, jitter=share, rotate=floats(0, 180), noise_fill=share),
    st.builds(StandardAugment, rotate=floats(0, 180), flip=share, contrast=floats(0, 1e6)),
)
losses = st.one_of(
    st.just(L1Loss()),
    st.just(MSELoss()),
    st.builds(SmoothL1Loss, beta=rates),
    st.builds(WingLoss, width=rates),
)
schedules = st.one_of(
    st.builds(
        CyclicSchedule, base_lr=floats(1e-9, 1e-4), max_lr=floats(1e-4, 1), gamma=st.none() | floats(0.1, 1)
    ),
    st.builds(CyclicSchedule, mode=st.sampled_from(["triangular", "triangular2"]), gamma=st.none()),
    st.builds(OneCycleSchedule, max_lr=rates, pct_start=floats(0.01, 0.99)),
    st.builds(FlatCosSchedule, max_lr=rates),
)
recipes = st.builds(
    Recipe,
    seed=st.integers(0, 2**32 - 1),
    model=st.builds(Model, arch=st.text(), head=heads, input_size=st.integers(32, 1024)),
    data=st.builds(
        Data, source=st.text(), limit=st.none() | st.integers(2, 10**6), complete_only=st.booleans()
    ),
    augment=augments,
    training=st.builds(
        Training,
        loss=losses,
        schedule=schedules,
        optimizer=st.builds(AdamOptimizer, weight_decay=share)
        | st.builds(AdamWOptimizer, weight_decay=share),
        wandb=st.none() | st.sampled_from(["yes", "1", "null", "ä: b", "# c"]),
    ),
)


@settings(max_examples=60)
@given(recipe=recipes)
def test_a_recipe_survives_its_yaml(tmp_path_factory: pytest.TempPathFactory, recipe: Recipe) -> None:
    path = tmp_path_factory.getbasetemp() / "again.yaml"
    path.write_text(dump_recipe(recipe), encoding="utf-8")
    assert load_recipe(str(path)) == recipe
    assert check_recipe(recipe.model_dump(), "itself") == recipe


@pytest.mark.parametrize("source", ["a\x85b.csv", "K\u00f6ln.csv", "not utf-8 \udcff.csv", "1e3", "null"])
def test_an_odd_path_survives_too(tmp_path: Path, source: str) -> None:
    recipe = Recipe(data=Data(source=source))
    assert load_recipe(written(tmp_path, dump_recipe(recipe))) == recipe

"""Loading a config from YAML, overriding its options, and dumping it as YAML."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import yaml
from pydantic import ValidationError

from landmarks_fastai.config.messages import explain_error
from landmarks_fastai.config.options import TrainConfig, expand_name
from landmarks_fastai.errors import UserError
from landmarks_fastai.utils.text import quote, shorten, suggest
from landmarks_fastai.utils.yaml_reader import parse_yaml, read_yaml

CONFIG_DIR = Path(__file__).resolve().parents[1] / "configs"
if not CONFIG_DIR.is_dir():  # a checkout: only in an installed package are the configs inside of it
    CONFIG_DIR = Path(__file__).resolve().parents[2] / "configs"


def config_names() -> list[str]:
    """Return the names of the built-in configs."""
    return sorted(path.stem for path in CONFIG_DIR.glob("*.yaml"))


def load_config(
    name: str, overrides: Mapping[str, object] | None = None, settings: Sequence[str] = ()
) -> TrainConfig:
    """Read a config, apply overrides to it and validate the result.

    Settings take precedence over overrides, and both over the file.

    Parameters
    ----------
    name
        Name of a built-in config, or path of a YAML file.
    overrides
        Values by dotted key, from dedicated command-line options: ``{"training.epochs": 5}``.
    settings
        Strings ``key.sub=value`` with the value in YAML: ``["training.schedule=flat_cos"]``.

    Raises
    ------
    UserError
        If the file cannot be read, or a key or value is invalid; the message suggests the closest valid one.
    """
    path = _find_config(name)
    source = str(path) if path.suffix and path.parent != CONFIG_DIR else f"config {name}"
    # with all defaults filled in, so that an override can set an option of a group that the file omits
    content = read_yaml(path)
    entries = validate_config({} if content is None else content, source).model_dump()
    for key, value in (overrides or {}).items():
        _set_key(entries, key, value, f"option {key}")
    for setting in settings:
        key, value = _parse_setting(setting)
        _set_key(entries, key, value, f"--set {shorten(setting)}")
    return validate_config(entries, source)


def validate_config(entries: object, source: str) -> TrainConfig:
    """Create a config from plain dicts, lists and values.

    Parameters
    ----------
    entries
        The content of a YAML file.
    source
        Where the config comes from, for messages.

    Raises
    ------
    UserError
        If an entry is invalid; the message names the first such key and suggests the closest valid one.
    """
    if not isinstance(entries, dict):
        keys = ", ".join(TrainConfig.model_fields)
        raise UserError(f"{source}: a config must be a YAML mapping with the keys {keys}")
    try:
        return TrainConfig.model_validate(entries)
    except ValidationError as error:
        raise UserError(f"{source}: {explain_error(error)}") from error


def dump_config(config: TrainConfig) -> str:
    """Return the config as YAML, including all defaults."""
    # escaped to ASCII, because YAML treats some characters that a path may contain (U+0085) as line breaks
    return yaml.safe_dump(config.model_dump(), sort_keys=False)


def _find_config(name: str) -> Path:
    """Return the path of a config file or of a built-in config."""
    path = Path(name)
    if path.suffix in (".yaml", ".yml") or path.parent != Path("."):
        if not path.is_file():
            raise UserError(
                f"{shorten(name, 200)}: no such config file; the built-in configs are"
                f" {', '.join(config_names())}"
            )
        return path
    builtin = CONFIG_DIR / f"{name}.yaml"
    if not builtin.is_file():
        raise UserError(f"no such config {quote(name)}; {suggest(name, config_names())}")
    return builtin


def _parse_setting(setting: str) -> tuple[str, object]:
    """Split ``key.sub=value`` and parse the value as YAML."""
    key, equals, text = setting.partition("=")
    if not equals or not key:
        raise UserError(
            f"--set {shorten(setting)}: must have the form key.sub=value, such as training.epochs=5"
        )
    try:
        return key, parse_yaml(text, key)
    except UserError:
        raise UserError(
            f"--set {shorten(setting)}: the value is not valid YAML; put text in quotes"
        ) from None


def _set_key(entries: dict[str, Any], key: str, value: object, source: str) -> None:
    """Set the key ``a.b.c`` in nested mappings.

    Setting another `name` discards the options of the previous one. A string in place of a group of options
    is its name; the options of that name can be set afterward.
    """
    names = key.split(".")
    *parents, last = names
    group = entries
    for parent, child in zip(parents, names[1:], strict=True):
        options = group.get(parent, {})
        if not isinstance(options, dict):
            raise UserError(f"{source}: {shorten(parent)} is a single value and has no key {quote(child)}")
        group = group.setdefault(parent, options)
    if last == "name" and group.get("name") != value:
        group.clear()
    group[last] = expand_name(value) if isinstance(group.get(last), dict) else value

"""One-line explanations of the validation errors of a config."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Union, get_args, get_origin

from pydantic import BaseModel, ValidationError

from landmarks_fastai.config.options import Options, TrainConfig
from landmarks_fastai.utils.text import quote, shorten, suggest

LIMITS = {"ge": "at least", "gt": "greater than", "le": "at most", "lt": "less than"}
"""Words for the limits of a number in the context of pydantic's errors."""

TYPES = {
    "bool": "must be true or false",
    "finite": "must be a finite number",
    "float": "must be a number",
    "int": "must be an integer",
    "string": "must be text; put it in quotes",
}
"""What a value must be, by the first word of pydantic's error."""

QUOTES = "'\""


def explain_error(error: ValidationError) -> str:
    """Return the first error as one line: the key, what is wrong, and the closest valid key or value."""
    details = error.errors()[0]
    keys, group = _locate(details["loc"])
    return f"{shorten('.'.join(keys), 120)}: {_explain(dict(details), group)}"


def _explain(details: dict[str, Any], group: type[BaseModel]) -> str:
    """Explain one of pydantic's errors; `group` is the option group that contains the key.

    The error types are listed at https://docs.pydantic.dev/latest/errors/validation_errors/
    """
    context = details.get("ctx", {})
    match details["type"]:
        case "extra_forbidden":
            return f"no such key; {suggest(str(details['loc'][-1]), group.model_fields)}"
        case "union_tag_invalid":
            name = str(context["tag"])
            return f"no such name {quote(name)}; {suggest(name, _unquote(context['expected_tags']))}"
        case "union_tag_not_found":
            return "the key 'name' is missing"
        case "literal_error":
            value = quote(details["input"])
            allowed = _unquote(str(context["expected"]).replace(" or ", ", "))
            return f"invalid value {value}; {suggest(value.strip(QUOTES), allowed)}"
        case "model_type":
            return f"must be a mapping of options (got {quote(details['input'])})"
        case "value_error":
            return shorten(str(details["msg"]).removeprefix("Value error, "), 200)
    return f"{_requirement(details['type'], context, details['msg'])} (got {quote(details['input'])})"


def _requirement(kind: str, context: Mapping[str, Any], message: str) -> str:
    """Return what pydantic's error `kind` requires of a value; its own `message` for any other kind."""
    for limit, words in LIMITS.items():
        if limit in context:
            return f"must be {words} {str(context[limit]).removesuffix('.0')}"
    return TYPES.get(kind.split("_", 1)[0], f"is invalid: {shorten(message, 80)}")


def _unquote(names: str) -> list[str]:
    """Split pydantic's list of allowed values: ``"'a', 'b'"``."""
    return names.replace("'", "").split(", ")


def _locate(location: Sequence[int | str]) -> tuple[list[str], type[BaseModel]]:
    """Return the config keys of pydantic's location of an error, and the option group of the last key.

    For an option of a discriminated union, pydantic inserts the chosen name, which is not a key of the
    config, into the location: ``("model", "head", "linear", "width")``.
    """
    keys: list[str] = []
    group: type[BaseModel] = TrainConfig
    options: Any = TrainConfig
    for part in location:
        if isinstance(options, dict):
            options = options.get(part)
            continue
        keys.append(str(part))
        group = options or group
        options = _options_of(options, str(part))
    return keys, group


def _options_of(group: type[BaseModel] | None, key: str) -> Any:
    """Return the options below `key`: a class, a dict of classes by name for a union, None for a value."""
    if group is None or key not in group.model_fields:
        return None
    annotation = group.model_fields[key].annotation
    if get_origin(annotation) is Union:
        members = [
            member
            for member in get_args(annotation)
            if isinstance(member, type) and issubclass(member, Options)
        ]
        return {str(member.model_fields["name"].default): member for member in members} or None
    return annotation if isinstance(annotation, type) and issubclass(annotation, BaseModel) else None

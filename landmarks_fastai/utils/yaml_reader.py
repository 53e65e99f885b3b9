"""Reading YAML files that others wrote, with one-line errors."""

from __future__ import annotations

import re
from pathlib import Path

import yaml

from landmarks_fastai.errors import UserError

MAX_BYTES = 1_000_000


class _SafeLoader(yaml.SafeLoader):
    """Loader of plain values that refuses aliases, because a few of them expand to billions of values."""

    def compose_node(self, parent: yaml.Node | None, index: int) -> yaml.Node | None:
        if self.check_event(yaml.AliasEvent):
            mark = self.peek_event().start_mark  # type: ignore[no-untyped-call]
            raise yaml.composer.ComposerError(
                None, None, "an alias (*name); write the value out instead", mark
            )
        return super().compose_node(parent, index)


def read_yaml(path: Path) -> object:
    """Read a YAML file in UTF-8 or UTF-16; None if it is empty.

    Raises
    ------
    UserError
        If the file cannot be read, is not YAML, contains aliases, values of other types than YAML's own or
        values that cannot be converted, is nested too deeply, or is larger than `MAX_BYTES`.
    """
    try:
        size = path.stat().st_size
        if size > MAX_BYTES:
            raise UserError(
                f"{path}: {size / 1e6:.1f} MB are too large for a YAML file; the limit is"
                f" {MAX_BYTES / 1e6:g} MB"
            )
        content = path.read_bytes()
    except OSError as error:
        raise UserError(f"{path}: cannot be read ({error.strerror or error})") from error
    return parse_yaml(content, str(path))


def parse_yaml(content: bytes | str, source: str) -> object:
    """Parse YAML; see `read_yaml`.

    Parameters
    ----------
    content
        The YAML document.
    source
        Name of the file in messages.

    Raises
    ------
    UserError
        As `read_yaml`.
    """
    try:
        parsed: object = yaml.load(content, Loader=_SafeLoader)
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        where = "" if mark is None else f", line {mark.line + 1}, column {mark.column + 1}"
        raise UserError(
            f"{source}{where}: not usable as YAML ({_one_line(error.problem or error.context)});"
            " correct it, or copy the file again"
        ) from None
    except yaml.YAMLError as error:
        raise UserError(
            f"{source}: not text in UTF-8 or UTF-16 ({_one_line(error)}); save it as UTF-8"
        ) from None
    except RecursionError:
        raise UserError(f"{source}: not usable as YAML: its brackets are nested too deeply") from None
    except Exception as error:  # PyYAML's constructors raise ValueError, KeyError, TypeError, AttributeError
        raise UserError(
            f"{source}: not usable as YAML: a value does not have the type that it seems to have"
            f" ({_one_line(error)}); put text in quotes"
        ) from None
    return parsed


def _one_line(reason: object) -> str:
    text = re.sub(r"\s+", " ", str(reason))
    return text if len(text) <= 80 else f"{text[:79]}…"

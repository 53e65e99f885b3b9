"""Reading YAML files that others wrote, with one-line errors."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import yaml

from landmarks_fastai.errors import UserError
from landmarks_fastai.utils.text import quote, shorten

MAX_BYTES = 500_000
"""Larger files would take many seconds."""

MAX_DEPTH = 50
MAX_DIGITS = 300
"""Most digits of a number; no usable one has as many, and Python does not print longer ones."""


class _SafeLoader(yaml.SafeLoader):
    """Loader of plain values with limits.

    It refuses aliases, because a few of them expand to billions of values, and duplicate keys, of which the
    base class keeps the last one without a word.
    """

    _depth = 0

    def compose_node(self, parent: yaml.Node | None, index: int) -> yaml.Node | None:
        if self.check_event(yaml.AliasEvent):
            raise self._error("an alias (*name); write the value out instead")
        self._depth += 1
        if self._depth > MAX_DEPTH:
            raise self._error("nested too deeply")
        node = super().compose_node(parent, index)
        self._depth -= 1
        return node

    def construct_object(self, node: yaml.Node, deep: bool = False) -> Any:
        try:
            return super().construct_object(node, deep)
        except (yaml.YAMLError, RecursionError):
            raise
        except Exception as error:  # the constructors raise ValueError, KeyError, TypeError, AttributeError
            kind = node.tag.rsplit(":", 1)[-1]
            problem = f"{quote(node.value, 30)} is no valid {shorten(kind, 20)}; put text in quotes"
            raise yaml.constructor.ConstructorError(problem=problem, problem_mark=node.start_mark) from error

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Any, Any]:
        known: set[str] = set()
        for key, _ in node.value if isinstance(node, yaml.MappingNode) else ():
            if isinstance(key, yaml.ScalarNode):
                if key.value in known:
                    problem = f"duplicate key {key.value!r}"
                    raise yaml.constructor.ConstructorError(problem=problem, problem_mark=key.start_mark)
                known.add(key.value)
        return super().construct_mapping(node, deep)

    def construct_yaml_int(self, node: yaml.ScalarNode) -> int:
        if len(node.value) > MAX_DIGITS:
            problem = "a number has too many digits"
            raise yaml.constructor.ConstructorError(problem=problem, problem_mark=node.start_mark)
        return int(super().construct_yaml_int(node))

    def _error(self, problem: str) -> yaml.MarkedYAMLError:
        mark = self.peek_event().start_mark  # type: ignore[no-untyped-call]
        return yaml.composer.ComposerError(problem=problem, problem_mark=mark)


_SafeLoader.add_constructor("tag:yaml.org,2002:int", _SafeLoader.construct_yaml_int)


def read_yaml(path: Path) -> object:
    """Read a YAML file in UTF-8 or UTF-16; None if it is empty.

    Raises
    ------
    UserError
        If the file cannot be read, is not YAML, contains aliases, duplicate keys, values of other types than
        YAML's own or values that cannot be converted, or exceeds `MAX_BYTES`, `MAX_DEPTH` or `MAX_DIGITS`.
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
    except RecursionError:  # the parser's own, of an unclosed bracket for example
        raise UserError(f"{source}: not usable as YAML: its brackets are nested too deeply") from None
    return parsed


def _one_line(reason: object) -> str:
    return shorten(str(reason), 100)

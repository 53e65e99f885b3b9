"""MkDocs hooks: pages that are generated from the code and from files outside docs/ at every build."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path
from typing import Any, Union, get_args, get_origin

from mkdocs.config.defaults import MkDocsConfig
from mkdocs.structure.files import File, Files
from pydantic import BaseModel
from pydantic.fields import FieldInfo
from pydantic_core import PydanticUndefined

ROOT = Path(__file__).resolve().parents[1]


def on_files(files: Files, config: MkDocsConfig) -> Files:
    """Add the generated pages to those in docs/."""
    pages = {
        "reference/cli.md": cli_page(),
        "reference/config.md": config_page(),
        "reference/models.md": outside_page(ROOT / "models" / "README.md", "reference"),
        "reference/changelog.md": outside_page(ROOT / "CHANGELOG.md", "reference"),
        "benchmarks/index.md": outside_page(ROOT / "benchmarks" / "README.md", "benchmarks"),
    }
    for page in sorted((ROOT / "benchmarks").glob("*.md")):
        if page.name != "README.md":
            pages[f"benchmarks/{page.name}"] = outside_page(page, "benchmarks")
    for uri, content in pages.items():
        files.append(File.generated(config, uri, content=content))
    for image in (ROOT / "benchmarks").glob("*.png"):
        files.append(File.generated(config, f"benchmarks/{image.name}", abs_src_path=str(image)))
    return files


def cli_page() -> str:
    """Return the reference of the command line, as typer documents the app."""
    command = [sys.executable, "-m", "typer", "landmarks_fastai.cli.app", "utils", "docs"]
    text = subprocess.run(
        [*command, "--name", "landmarks-fastai", "--title", "Command line"],
        check=True, capture_output=True, text=True, cwd=ROOT,
    ).stdout  # fmt: skip
    # the examples of the help texts are plain lines there
    text = re.sub(r"^ {0,3}(landmarks-fastai .*)$", r"    \1", text, flags=re.MULTILINE)
    note = "In a checkout, `python cli.py` is the same as `landmarks-fastai`."
    return text.replace("# Command line\n", f"# Command line\n\n{note}\n", 1)


# --- the config reference ------------------------------------------------------------------------


def config_page() -> str:
    """Return the reference of all config keys, derived from the config classes."""
    from landmarks_fastai.config.options import TrainConfig

    lines = [
        "# Config",
        "",
        "Every key of a YAML config with its type, default and meaning. A config file lists only what",
        "differs from the defaults, which are what we recommend; `--set key=value` overrides single keys.",
        "A part with alternatives is chosen by `name`: `head: linear` is short for `head: {name: linear}`.",
        "",
    ]
    lines += _table_of(TrainConfig, "")
    for key, field in TrainConfig.model_fields.items():
        if _alternatives(field) or _options(field):
            lines += _section(key, field, level=2)
    return "\n".join(lines) + "\n"


def _section(key: str, field: FieldInfo, level: int) -> list[str]:
    """Return the part of the reference below one key, recursively."""
    lines = [f"{'#' * level} `{key}`", ""]
    if group := _options(field):
        lines += [str(group.__doc__), "", *_table_of(group, f"{key}.")]
        for name, child in group.model_fields.items():
            if _alternatives(child) or _options(child):
                lines += _section(f"{key}.{name}", child, level + 1)
        return lines
    default = field.get_default()
    lines += [
        f"{field.description.capitalize() if field.description else ''}. Default: `{default.name}`.",
        "",
    ]
    for option in _alternatives(field):
        name = option.model_fields["name"].default
        lines += [f"{'#' * (level + 1)} `{key}: {name}`", "", str(option.__doc__), ""]
        lines += _table_of(option, f"{key}.")
    return lines


def _table_of(group: type[BaseModel], prefix: str) -> list[str]:
    """Return the table of a group's own keys; empty if it has none but its name."""
    rows = [
        f"| `{prefix}{name}` | {_type_name(field)} | {_default_of(field)} | {field.description or ''} |"
        for name, field in group.model_fields.items()
        if name != "name"
    ]
    return ["| key | type | default | meaning |", "| --- | --- | --- | --- |", *rows, ""] if rows else []


def _options(field: FieldInfo) -> type[BaseModel] | None:
    """Return the class of a group of options, or None."""
    kind = field.annotation
    return kind if isinstance(kind, type) and issubclass(kind, BaseModel) else None


def _alternatives(field: FieldInfo) -> list[type[BaseModel]]:
    """Return the classes to choose from by name; none for other fields."""
    kinds = get_args(field.annotation) if get_origin(field.annotation) is Union else ()
    return [kind for kind in kinds if isinstance(kind, type) and issubclass(kind, BaseModel)]


def _type_name(field: FieldInfo) -> str:
    """Return a readable type, with its bounds."""
    if alternatives := _alternatives(field):
        return " or ".join(f"`{option.model_fields['name'].default}`" for option in alternatives)
    if _options(field):
        return "see below"
    kind: Any = field.annotation
    names = [arg.__name__ if isinstance(arg, type) else repr(arg) for arg in get_args(kind)] or [
        kind.__name__
    ]
    text = " or ".join(f"`{_flat(name)}`" for name in names if name != "NoneType")
    signs = {"ge": "≥", "gt": ">", "le": "≤", "lt": "<"}
    bounds = [
        f"{sign} {getattr(rule, attribute)}"
        for rule in field.metadata
        for attribute, sign in signs.items()
        if hasattr(rule, attribute)
    ]
    return f"{text}, {', '.join(bounds)}" if bounds else text


def _flat(name: str) -> str:
    """Write the alternatives of a Literal without its wrapper."""
    return name.removeprefix("typing.Literal[").removesuffix("]")


def _default_of(field: FieldInfo) -> str:
    default = field.get_default()
    if default is PydanticUndefined:
        return "required"
    if isinstance(default, BaseModel):
        return f"`{default.name}`" if hasattr(default, "name") else ""
    return (
        "unset" if default is None else f"`{str(default).lower() if isinstance(default, bool) else default}`"
    )


# --- pages of files outside docs/ ----------------------------------------------------------------


def outside_page(path: Path, folder: str) -> str:
    """Return a Markdown file of the repository, with its relative links adapted to its place in the site."""

    def adapt(match: re.Match[str]) -> str:
        text, target = match[1], match[2]
        if re.match(r"[a-z]+:|#", target):
            return match[0]
        file, _, anchor = target.partition("#")
        place = SITE_PLACES.get((path.parent / file).resolve().relative_to(ROOT).as_posix())
        resolved = (path.parent / file).resolve()
        if place is None and resolved.parent == ROOT / "benchmarks" and resolved.suffix in (".md", ".png"):
            place = f"benchmarks/{resolved.name}"
        if place is None:  # a file that is not part of the site: its name says enough
            return f"`{text.strip('`')}`"
        relative = "/".join([".."] * (folder.count("/") + 1)) + f"/{place}"
        return f"[{text}]({relative}{'#' + anchor if anchor else ''})"

    return re.sub(r"\[([^\]]*)\]\(([^)\s]+)\)", adapt, path.read_text(encoding="utf-8"))


SITE_PLACES = {
    "README.md": "index.md",
    "CHANGELOG.md": "reference/changelog.md",
    "models/README.md": "reference/models.md",
    "benchmarks/README.md": "benchmarks/index.md",
    "benchmarks": "benchmarks/index.md",
}

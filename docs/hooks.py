"""MkDocs hooks: at every build, generate pages from the code and from files outside docs/."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path
from types import NoneType
from typing import Any, Literal, Union, get_args, get_origin

from mkdocs.config.defaults import MkDocsConfig
from mkdocs.structure.files import File, Files
from pydantic import BaseModel
from pydantic.fields import FieldInfo
from pydantic_core import PydanticUndefined

ROOT = Path(__file__).resolve().parents[1]


def on_files(files: Files, config: MkDocsConfig) -> Files:
    """Add the generated pages, and the images of the benchmarks, to the files in docs/."""
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
    """Return the reference page of the command line, written by typer."""
    command = [sys.executable, "-m", "typer", "landmarks_fastai.cli.app", "utils", "docs"]
    text = subprocess.run(
        [*command, "--name", "landmarks-fastai", "--title", "Command line"],
        check=True, capture_output=True, text=True, cwd=ROOT,
    ).stdout  # fmt: skip
    # typer writes the examples in the help texts as plain paragraphs; as code they keep their line breaks
    text = re.sub(r"^ {0,3}(landmarks-fastai .*)$", r"    \1", text, flags=re.MULTILINE)
    note = (
        "In a checkout, `python cli.py` is the same as `landmarks-fastai`.\n\nThe exit code is 0 on success,"
        " 2 if the input is wrong or a part of it could not be used, and 1 if the command failed or was"
        " interrupted: by Ctrl-C, or by SIGTERM, which does the same. An interrupted command keeps what it"
        " has done."
    )
    return text.replace("# Command line\n", f"# Command line\n\n{note}\n", 1)


# --- the config reference ------------------------------------------------------------------------


def config_page() -> str:
    """Return the reference page of all config keys, derived from the config classes."""
    from landmarks_fastai.config.options import TrainConfig

    lines = [
        "# Config",
        "",
        "Every key of a YAML config with its type, default and meaning. The defaults are recommended, so",
        "a config file lists only what differs from them; `--set key=value` overrides single keys.",
        "Heads, augmentations, losses, optimizers and schedules are chosen by `name`: `head: linear` is",
        "short for `head: {name: linear}`.",
        "",
    ]
    lines += _table_of(TrainConfig, "")
    for key, field in TrainConfig.model_fields.items():
        if _alternatives(field) or _options(field):
            lines += _section(key, field, level=2)
    return "\n".join(lines) + "\n"


def _section(key: str, field: FieldInfo, level: int) -> list[str]:
    """Return the lines of the section of one key and, recursively, of the keys below it."""
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
    """Return the lines of the table of a class's keys, without `name`; empty if there are none."""
    rows = [
        f"| `{prefix}{name}` | {_type_name(field)} | {_default_of(field)} | {field.description or ''} |"
        for name, field in group.model_fields.items()
        if name != "name"
    ]
    return ["| key | type | default | meaning |", "| --- | --- | --- | --- |", *rows, ""] if rows else []


def _options(field: FieldInfo) -> type[BaseModel] | None:
    """Return the class of a field that is one group of options; None for other fields."""
    kind = field.annotation
    return kind if isinstance(kind, type) and issubclass(kind, BaseModel) else None


def _alternatives(field: FieldInfo) -> list[type[BaseModel]]:
    """Return the classes of a field whose options are chosen by name; empty for other fields."""
    kinds = get_args(field.annotation) if get_origin(field.annotation) is Union else ()
    return [kind for kind in kinds if isinstance(kind, type) and issubclass(kind, BaseModel)]


def _type_name(field: FieldInfo) -> str:
    """Return the type of a field and its bounds, as Markdown."""
    if alternatives := _alternatives(field):
        return " or ".join(f"`{option.model_fields['name'].default}`" for option in alternatives)
    if _options(field):
        return "see below"
    text = " or ".join(f"`{name}`" for name in _type_names(field.annotation))
    signs = {"ge": "≥", "gt": ">", "le": "≤", "lt": "<"}
    bounds = [
        f"{sign} {getattr(rule, attribute)}"
        for rule in field.metadata
        for attribute, sign in signs.items()
        if hasattr(rule, attribute)
    ]
    return f"{text}, {', '.join(bounds)}" if bounds else text


def _type_names(annotation: Any) -> list[str]:
    """Return the names of the types in an annotation, and the values of its Literals; None is left out."""
    if get_origin(annotation) is Literal:
        return [str(value) for value in get_args(annotation)]
    if arguments := get_args(annotation):
        return [name for argument in arguments for name in _type_names(argument)]
    return [] if annotation is NoneType else [annotation.__name__]


def _default_of(field: FieldInfo) -> str:
    """Return the default of a field, as Markdown."""
    default = field.get_default()
    if default is PydanticUndefined:
        return "required"
    if isinstance(default, BaseModel):
        return f"`{default.name}`" if hasattr(default, "name") else ""
    if default is None:
        return "unset"
    if isinstance(default, bool):
        return f"`{str(default).lower()}`"
    return f"`{default:.4g}`" if isinstance(default, float) and len(str(default)) > 10 else f"`{default}`"


# --- pages of files outside docs/ ----------------------------------------------------------------


def outside_page(path: Path, folder: str) -> str:
    """Return the text of a Markdown file outside docs/, with its links adapted to the site.

    Parameters
    ----------
    path
        The file.
    folder
        Folder of the page in the site. Links to files that are not part of the site become their names.
    """

    def adapt(match: re.Match[str]) -> str:
        text, target = match[1], match[2]
        if re.match(r"[a-z]+:|#", target):
            return match[0]
        file, _, anchor = target.partition("#")
        source = (path.parent / file).resolve()
        page = SITE_PAGES.get(source.relative_to(ROOT).as_posix())
        if page is None and source.parent == ROOT / "benchmarks" and source.suffix in (".md", ".png"):
            page = f"benchmarks/{source.name}"
        if page is None:
            return f"`{text.strip('`')}`"
        relative = "/".join([".."] * (folder.count("/") + 1)) + f"/{page}"
        return f"[{text}]({relative}{'#' + anchor if anchor else ''})"

    return re.sub(r"\[([^\]]*)\]\(([^)\s]+)\)", adapt, path.read_text(encoding="utf-8"))


SITE_PAGES = {
    "README.md": "index.md",
    "CHANGELOG.md": "reference/changelog.md",
    "models/README.md": "reference/models.md",
    "benchmarks/README.md": "benchmarks/index.md",
    "benchmarks": "benchmarks/index.md",
}

"""The command `configs`."""

from __future__ import annotations

from typing import Annotated, Optional

import typer


def configs(
    name: Annotated[
        Optional[str],
        typer.Argument(help="Config to print as YAML, with all defaults filled in.", metavar="NAME"),
    ] = None,
) -> None:
    """List the built-in configs, or print one.

    For example:

      landmarks-fastai configs

      landmarks-fastai configs original-resnet34
    """
    from landmarks_fastai.config.loading import config_names, dump_config, load_config

    if name is not None:
        typer.echo(dump_config(load_config(name)), nl=False)
        return
    names = config_names()
    for each in names:
        config = load_config(each)
        typer.echo(
            f"{each:{max(map(len, names))}}  {config.model.arch}, {config.model.head.name},"
            f" {config.model.input_size} px, {config.augment.name}, {config.training.schedule.name},"
            f" {config.training.epochs} epochs"
        )

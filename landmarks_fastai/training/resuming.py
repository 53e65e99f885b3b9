"""What a run and a cross-validation check before they are resumed."""

from __future__ import annotations

from pathlib import Path

from landmarks_fastai.config.options import TrainConfig
from landmarks_fastai.errors import UserError
from landmarks_fastai.inference.backends import resolve_device
from landmarks_fastai.training.run_replacement import settle_replacement


def check_not_restored(folder: Path) -> None:
    """Before a run is resumed, put back the earlier run that a killed process has not replaced.

    Raises
    ------
    UserError
        If there was one, because the run to be resumed does not exist.
    """
    if settle_replacement(folder) == "restored":
        raise UserError(
            f"{folder}: the new run ended before its first checkpoint, so there is nothing to resume; the"
            " earlier run is back in its place"
        )


def with_available_device(config: TrainConfig) -> TrainConfig:
    """Return the config of a run to be resumed, with the device "auto" if that of the run is not here."""
    try:
        resolve_device(config.training.device)
    except UserError:
        training = config.training.model_copy(update={"device": "auto"})
        return config.model_copy(update={"training": training})
    return config


def changed_data_error(folder: Path, config: TrainConfig) -> UserError:
    """Return the error for a run folder whose data set has changed since the run began."""
    return UserError(
        f"{folder}: {config.data.source} has changed since this run began; restore the data, or train again"
    )

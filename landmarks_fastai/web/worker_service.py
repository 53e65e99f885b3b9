"""The service of the page in two worker processes: a photo never waits for a video."""

from __future__ import annotations

import tempfile
from collections.abc import Sequence
from functools import partial
from pathlib import Path

from landmarks_fastai.inference.face_detection import AUTO
from landmarks_fastai.utils.progress import Progress
from landmarks_fastai.web.limits import Limits
from landmarks_fastai.web.service import LandmarkService, Result, model_names
from landmarks_fastai.web.worker import Job, Worker


class WorkerService:
    """Does what `LandmarkService` does, in one process for photos and one for videos.

    The process for videos is started by the first video.

    Parameters
    ----------
    models, detector, limits
        See `LandmarkService`.
    folder
        Folder for the temporary files of libraries, which a killed process leaves behind. None: that of the
        system.
    """

    def __init__(
        self,
        models: Sequence[Path],
        detector: str = AUTO,
        limits: Limits | None = None,
        folder: Path | None = None,
    ) -> None:
        self.limits = limits or Limits()
        self.models = model_names(models)
        opened = partial(open_service, list(models), detector, self.limits, folder)
        self._photos = Worker(opened, self.limits)
        self._videos = Worker(opened, self.limits)

    def start(self) -> None:
        """Start the process for photos; see `Worker.start`."""
        self._photos.start()

    def predict_photo(self, path: Path, model: str, out: Path) -> Result:
        """Predict the landmarks of a photo; see `LandmarkService.predict_photo` and `Worker.run`."""
        job = Job("predict_photo", (path, model, out), path.name, self.limits.photo_seconds)
        result: Result = self._photos.run(job)
        return result

    def predict_video(self, path: Path, model: str, out: Path, progress: Progress | None = None) -> Result:
        """Track the faces of a video; see `LandmarkService.predict_video` and `Worker.run`."""
        limits = self.limits
        job = Job("predict_video", (path, model, out), path.name, limits.video_seconds, limits.stall_seconds)
        result: Result = self._videos.run(job, progress)
        return result

    def warning(self, model: str) -> str | None:
        """Return a warning about a model for its user, or None; see `LandmarkService.warning`."""
        text: str | None = self._photos.run(Job("warning", (model,), model[:100], self.limits.photo_seconds))
        return text

    def close(self) -> None:
        """Stop both processes, and the predictions in progress."""
        self._photos.close()
        self._videos.close()


def open_service(
    models: Sequence[Path], detector: str, limits: Limits, folder: Path | None
) -> LandmarkService:
    """Return a service that has opened its first model, so that the first request does not wait for it.

    Call it in the worker process only: it also sets the folder of the process's temporary files.
    """
    if folder is not None:
        tempfile.tempdir = str(folder)
    service = LandmarkService(models, detector, limits)
    service.open(service.models[0])
    return service

"""Train, evaluate and run landmark detectors with fastai.

Train a model on synthetic faces and evaluate it on its validation set::

    import landmarks_fastai as lm

    options = {"data.source": "synthetic", "data.count": 60, "training.epochs": 1}
    result = lm.train(lm.load_config("quick", options), "runs/example")
    print(result.report.overall.rmse, "px")
    print(lm.evaluate("runs/example").report.overall.nme_inter_ocular)

Predict the landmarks of all faces of a photo with a released model, and draw them::

    predictor = lm.Predictor.open("resnet18")
    detector = lm.open_detector("centerface")
    image = lm.read_image("photo.jpg")
    landmarks = predictor.predict_crops(image, detector(image).crops, refine=1)
    print(landmarks.schema.names, landmarks.points.shape)  # (faces, landmarks, 2), pixels of the photo
    drawing = lm.draw_landmarks(image, landmarks)

Everything is imported on first use: ``import landmarks_fastai`` alone imports neither numpy nor torch.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from landmarks_fastai.commands.compare import compare
    from landmarks_fastai.commands.evaluate import AnalysisOptions, evaluate
    from landmarks_fastai.commands.train import train
    from landmarks_fastai.config.loading import load_config
    from landmarks_fastai.config.options import DataConfig, TrainConfig
    from landmarks_fastai.data.dataset import LandmarkDataset
    from landmarks_fastai.data.sources import load_dataset
    from landmarks_fastai.geometry import Crop
    from landmarks_fastai.inference.face_detection import open_detector
    from landmarks_fastai.inference.predictor import Predictor
    from landmarks_fastai.inference.tracking import Tracker
    from landmarks_fastai.landmarks import Landmarks
    from landmarks_fastai.schema import LandmarkSchema
    from landmarks_fastai.utils.images import read_image
    from landmarks_fastai.video import VideoFrame, read_video, write_video
    from landmarks_fastai.visualization.landmarks import draw_landmarks

__version__ = "0.2.0"

__all__ = [
    "load_dataset",
    "DataConfig",
    "TrainConfig",
    "load_config",
    "train",
    "evaluate",
    "AnalysisOptions",
    "compare",
    "Predictor",
    "open_detector",
    "Tracker",
    "Crop",
    "Landmarks",
    "LandmarkSchema",
    "LandmarkDataset",
    "read_image",
    "draw_landmarks",
    "read_video",
    "write_video",
    "VideoFrame",
    "__version__",
]

_MODULES = {
    "load_dataset": "data.sources",
    "DataConfig": "config.options",
    "TrainConfig": "config.options",
    "load_config": "config.loading",
    "train": "commands.train",
    "evaluate": "commands.evaluate",
    "AnalysisOptions": "commands.evaluate",
    "compare": "commands.compare",
    "Predictor": "inference.predictor",
    "open_detector": "inference.face_detection",
    "Tracker": "inference.tracking",
    "Crop": "geometry",
    "Landmarks": "landmarks",
    "LandmarkSchema": "schema",
    "LandmarkDataset": "data.dataset",
    "read_image": "utils.images",
    "draw_landmarks": "visualization.landmarks",
    "read_video": "video",
    "write_video": "video",
    "VideoFrame": "video",
}
"""The module that defines each public name, imported when the name is first used."""


def __getattr__(name: str) -> Any:
    """Import a public name on first use (PEP 562)."""
    if name not in _MODULES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    value = getattr(import_module(f"{__name__}.{_MODULES[name]}"), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    """List the public names, including those that are not imported yet."""
    return sorted({*globals(), *__all__})

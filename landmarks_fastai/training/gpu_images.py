"""Keeping the images of a data set in the memory of a GPU, so that batches need not be copied to it."""

from __future__ import annotations

from collections.abc import Iterator

import torch
from fastai.data.core import DataLoaders

from landmarks_fastai.training.transforms import LoadImage

MAX_SHARE = 0.3
"""Largest share of the free memory of the GPU that the images may take; the rest is for the network."""


def keep_images_on_gpu(dls: DataLoaders, workers: int) -> bool:
    """Copy the images of the loaders to their GPU, if they fit, and nothing else is to load them.

    Parameters
    ----------
    dls
        The loaders of a run.
    workers
        Number of worker processes; if there are any, they load the images.

    Returns
    -------
    bool
        Whether the images are on the GPU.
    """
    device = torch.device(dls.device)
    if device.type != "cuda" or workers:
        return False
    free, _ = torch.cuda.mem_get_info(device)
    steps = list({id(step): step for step in _image_steps(dls)}.values())
    if sum(step.rows.images.pixels.nbytes for step in steps) > MAX_SHARE * free:
        return False
    for step in steps:
        step.keep_on(device)
    return True


def _image_steps(dls: DataLoaders) -> Iterator[LoadImage]:
    """Yield the transform that loads images of each loader."""
    for loader in dls.loaders:
        for pipeline in loader.dataset.tls:
            yield from (step for step in pipeline.tfms.fs if isinstance(step, LoadImage))

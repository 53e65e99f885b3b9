"""The training loop of the original project, written plainly.

It reads one image after the other through PIL in a torch Dataset and DataLoader, augments it with
torchvision, and trains a ResNet18 with a Lin-ReLU-Lin head by AdamW with the L1 loss and CyclicLR.
"""

from __future__ import annotations

import itertools
import math
import random

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor, nn
from torch.utils.data import DataLoader, Dataset
from torchvision import transforms
from torchvision.models import resnet18

from landmarks_fastai.data.dataset import LandmarkDataset

Pixels = NDArray[np.uint8]


class FaceDataset(Dataset[tuple[Tensor, Tensor]]):
    """The rows of a data set, augmented one at a time."""

    def __init__(self, dataset: LandmarkDataset, size: int) -> None:
        self.images, self.points, self.size = dataset.images, dataset.points, size
        self.jitter = transforms.ColorJitter(0.5, 0.5, 0.5, 0.5)
        self.erase = transforms.RandomErasing(1.0, (0.01, 0.02))

    def __len__(self) -> int:
        """Return the number of rows."""
        return len(self.points)

    def __getitem__(self, row: int) -> tuple[Tensor, Tensor]:
        """Return the image of a row, and its points as fractions of the side."""
        pixels, points = self.images[row : row + 1][0, ..., 0], self.points[row].copy()
        image = self.jitter(Image.fromarray(pixels).convert("RGB"))
        image = transforms.functional.adjust_sharpness(image, random.uniform(0, 2))
        side = image.width * (1 - random.uniform(0, 30 / 224))
        left, top = (random.uniform(0, image.width - side) for _ in range(2))
        box = (left, top, left + side, top + side)
        image = image.resize((self.size, self.size), Image.Resampling.BILINEAR, box)
        points = (points + 0.5 - (left, top)) * self.size / side - 0.5
        angle, middle = random.uniform(-180, 180), (self.size - 1) / 2
        image = image.rotate(angle, Image.Resampling.BILINEAR)
        cos, sin = math.cos(math.radians(angle)), math.sin(math.radians(angle))
        x, y = (points - middle).T
        points = np.stack([cos * x + sin * y, cos * y - sin * x], 1) + middle
        tensor = self.erase(transforms.functional.to_tensor(image))
        return normalize(tensor), torch.from_numpy(points / self.size).float().flatten()


def normalize(image: Tensor) -> Tensor:
    """Normalize (3, S, S) values from 0 to 1."""
    return transforms.functional.normalize(image, [0.5] * 3, [0.25] * 3)


class OriginalLoop:
    """The loop; each call is an iteration.

    Parameters
    ----------
    dataset
        Training rows, without unlabeled landmarks.
    size
        Side of the network input, pixels.
    batch_size
        Rows per iteration.
    device
        Device of the network.
    """

    def __init__(self, dataset: LandmarkDataset, size: int, batch_size: int, device: torch.device) -> None:
        loader = DataLoader(FaceDataset(dataset, size), batch_size, shuffle=True, drop_last=True)
        self.batches = itertools.chain.from_iterable(itertools.repeat(loader))
        outputs = 2 * dataset.points.shape[1]
        self.network = resnet18(weights=None)
        self.network.fc = nn.Sequential(nn.Linear(512, 256), nn.ReLU(), nn.Linear(256, outputs))
        self.network.to(device)
        self.optimizer = torch.optim.AdamW(self.network.parameters(), lr=1e-4)
        self.scheduler = torch.optim.lr_scheduler.CyclicLR(
            self.optimizer, 1e-4, 0.012, 2000, mode="exp_range", gamma=0.99995, cycle_momentum=False
        )
        self.loss_function, self.device, self.size = nn.L1Loss(), device, size

    def __call__(self) -> None:
        """Train on the next batch."""
        images, labels = next(self.batches)
        self.optimizer.zero_grad()
        loss = self.loss_function(self.network(images.to(self.device)), labels.to(self.device))
        loss.backward()
        self.optimizer.step()
        self.scheduler.step()
        loss.item()

    def predict(self, images: Pixels) -> NDArray[np.float32]:
        """Return the points of (N, H, W, 1) gray images as (N, K, 2), (x, y) in pixels of these images."""
        size = (self.size, self.size)
        inputs = torch.stack(
            [
                normalize(
                    transforms.functional.to_tensor(
                        Image.fromarray(image[..., 0]).convert("RGB").resize(size, Image.Resampling.BILINEAR)
                    )
                )
                for image in images
            ]
        )
        self.network.eval()
        with torch.no_grad():
            outputs = torch.cat([self.network(batch.to(self.device)).cpu() for batch in inputs.split(100)])
        self.network.train()
        points = outputs.reshape(len(images), -1, 2).numpy() * np.float32(self.size)
        return (points + np.float32(0.5)) * np.float32(images.shape[2] / self.size) - np.float32(0.5)

"""The networks, in torch without fastai: a ResNet backbone that returns its four stages, and a head.

Training (with fastai's `vision_learner`) and inference build the same modules with the same state dict.
"""

from landmarks_fastai.utils.torch_versions import import_torchvision

import_torchvision()  # fails with a message for the user if it does not fit torch

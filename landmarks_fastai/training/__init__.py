"""Training with fastai: from a config and a data set to a run folder with a model."""

import warnings

from landmarks_fastai.utils.torch_versions import import_torchvision

# warnings of torch and pandas during the import of fastai, about which a user can do nothing
warnings.filterwarnings("ignore", message=r"`torch\.jit\.\w+` is deprecated", category=FutureWarning)
warnings.filterwarnings("ignore", message=r"The 'mode\.chained_assignment' option is deprecated")

import_torchvision()  # before fastai, which has no message for the user if it does not fit torch

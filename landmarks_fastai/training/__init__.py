"""Training with fastai: from a config and a data set to a run folder with a model."""

import warnings

# raised by torch and pandas when fastai is imported; a user cannot do anything about them
warnings.filterwarnings("ignore", message=r"`torch\.jit\.\w+` is deprecated", category=FutureWarning)
warnings.filterwarnings("ignore", message=r"The 'mode\.chained_assignment' option is deprecated")

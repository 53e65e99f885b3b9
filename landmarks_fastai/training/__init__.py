"""Training with fastai: from a config and a data set to a run folder with a model."""

import warnings

# warnings of torch and pandas during the import of fastai, about which a user can do nothing
warnings.filterwarnings("ignore", message=r"`torch\.jit\.\w+` is deprecated", category=FutureWarning)
warnings.filterwarnings("ignore", message=r"The 'mode\.chained_assignment' option is deprecated")

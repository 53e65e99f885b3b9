"""All that needs fastai."""

import warnings

# torch warns at fastai's import of something that fastai does; nobody who trains can act on it
warnings.filterwarnings("ignore", message=r"`torch\.jit\.\w+` is deprecated", category=FutureWarning)
warnings.filterwarnings("ignore", message=r"The 'mode\.chained_assignment' option is deprecated")

"""All that needs fastai."""

"""From a model file and a picture to points; needs neither fastai nor the training rooms."""

"""From an image and a model file to landmarks. Needs neither fastai nor, for ONNX files, torch."""

"""Face detectors, one module each. To add one, see `landmarks_fastai.inference.face_detection`."""

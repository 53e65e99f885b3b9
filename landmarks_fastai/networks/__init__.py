"""The networks, in torch without fastai: a ResNet backbone that returns its four stages, and a head.

Training (with fastai's `vision_learner`) and inference build the same modules with the same state dict.
"""

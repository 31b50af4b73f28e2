"""One published ImageNet network, EfficientNet-Lite0, as a PyTorch, a Keras and a Flax NNX model."""

"""The TensorFlow backend of fusioncam: loaded by its entry point, not imported by users."""

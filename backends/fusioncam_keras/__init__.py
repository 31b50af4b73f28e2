"""The Keras 3 backend of fusioncam: loaded by its entry point, not imported by users."""

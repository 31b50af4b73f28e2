"""The JAX backend of fusioncam: Flax NNX, Flax Linen, Equinox and plain functions.

It is loaded by its entry point; what users import of it is `tap`, which names an array inside a model.
"""

from fusioncam_jax.taps import tap

__all__ = ["tap"]

"""A model of which nothing is known but that it answers: an inference session, a remote service, a function."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from fusioncam_core.arrays.namespaces import Array, array_namespace, constant_like
from fusioncam_core.errors import GradientsUnavailableError, InvalidTypeError
from fusioncam_core.models.adapter import Capture, LayerInfo, ModelAdapter, Score, channel_axis, not_an_array
from fusioncam_core.models.calling import Caller
from fusioncam_core.models.inputs import Inputs, Which


class BlackBox(ModelAdapter):
    """A function from a batch of images to outputs, for methods that need neither layer nor gradient, such as RISE.

    Args:
        function: called with a batch (n, ...), or, if the inputs are several, with them by position, by name or in one
            container, as its signature says; returns the outputs for it, (n, classes) for a classifier.
        channels: "first", "last", "none" or the number of their axis: where the channels of the images are.
        input_ndim: how many axes a batch has, if single images without a batch axis are to be understood.
        like: an array of the library that the function takes; None for float32 of NumPy.

    Raises:
        TypeError: if the function cannot be called, or `like` is no floating array.
        ValueError: for other channels.

    Examples:
        >>> import numpy as np
        >>> from fusioncam_core import RISE, BlackBox
        >>> function = BlackBox(lambda images: images.mean(axis=(1, 2)), channels="last")
        >>> RISE(function, masks=100)(np.ones((2, 8, 8, 3), dtype=np.float32), 1).maps.shape
        (2, 8, 8)
    """

    def __init__(
        self,
        function: Callable[..., Any],
        channels: str | int = "first",
        input_ndim: int | None = None,
        *,
        like: Array | None = None,
    ):
        if not callable(function):
            raise InvalidTypeError(f"Expected a function of images, got a {type(function).__qualname__}.")
        self._function = function
        self._call = Caller(function)
        self._input_ndim = input_ndim
        self._like = np.zeros((), dtype=np.float32) if like is None else like
        self.namespace = array_namespace(self._like)
        if not self._is_floating(self._like):
            raise InvalidTypeError(f"like is an array of a floating-point dtype: got one of {self._like.dtype}.")
        self.input_channel_axis = channel_axis(channels, 1)
        self.frameworks = (type(self._like).__module__.partition(".")[0],)
        self.model_name = getattr(function, "__name__", type(function).__qualname__)

    @property
    def anchor(self) -> Any:
        """The function, or the object whose method it is."""
        return getattr(self._function, "__self__", self._function)

    def find(self, layer: Any) -> str:
        """Raises InvalidTypeError: there are no layers."""
        raise self._no_layers()

    def as_array(self, values: Any) -> Array:
        """One input in the function's library; floating values get the dtype of `like`, others keep theirs.

        Raises:
            TypeError: for anything but an array of NumPy or of that library.
        """
        if isinstance(values, np.ndarray) and not isinstance(self._like, np.ndarray):
            floating = np.issubdtype(values.dtype, np.floating)
            return constant_like(values, self._like, self.namespace) if floating else self.namespace.asarray(values)
        if array_namespace(values) is not self.namespace:
            raise not_an_array(values, f"one like {type(self._like).__qualname__}")
        return self.namespace.astype(values, self._like.dtype) if self._is_floating(values) else values

    def _is_floating(self, array: Array) -> bool:
        return bool(self.namespace.isdtype(array.dtype, "real floating"))

    def input_ndim(self, which: Which) -> int | None:
        """The axes of a batch, as given."""
        return self._input_ndim if which is None else None

    def layers(self, inputs: Inputs) -> list[LayerInfo]:
        """None are known."""
        return []

    def no_default_layer(self, inputs: Inputs, gradients: bool) -> Exception:
        """A black box has neither layers nor gradients; which of them to name, the method says."""
        return self._no_gradients() if gradients else self._no_layers()

    def capture(self, inputs: Inputs, layers: Sequence[str], score: Score | None, targets: Array | None) -> Capture:
        """Raises GradientsUnavailableError if a score is to be differentiated, else TypeError: there are no layers."""
        raise self._no_layers() if score is None else self._no_gradients()

    def forward(self, inputs: Inputs) -> Any:
        """What the function returns."""
        return self._restored(self._call(inputs), inputs, self._call)

    def forward_with(self, inputs: Inputs, layer: str, activations: Array) -> Any:
        """Raises TypeError: there are no layers."""
        raise self._no_layers()

    def _no_layers(self) -> InvalidTypeError:
        return InvalidTypeError(
            f"{self.model_name} is a black box: it has no layers to explain. Take a method that needs none, such as "
            "RISE, or give the model itself."
        )

    def _no_gradients(self) -> GradientsUnavailableError:
        return GradientsUnavailableError(
            f"{self.model_name} is a black box: it gives outputs and no gradients. Take a method that only runs it, "
            "such as RISE, or give the model itself."
        )

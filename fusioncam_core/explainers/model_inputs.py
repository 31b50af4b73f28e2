"""What a model takes, where nobody declares it: how many axes a batch has, and where its channels are."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, TypeVar

from fusioncam_core.arrays.namespaces import Array
from fusioncam_core.errors import CannotRunError, FusionCamError
from fusioncam_core.models.adapter import ModelAdapter
from fusioncam_core.models.channels import measured_channel_axis, warn_of_other_channels
from fusioncam_core.models.inputs import Inputs, Which, expected_ndim, leaf, prepare, rows_of
from fusioncam_core.models.structure import Path

Work = TypeVar("Work")

Fitting = Callable[[Callable[[], Any], Inputs], Any]
"""`Explainer.fitting`."""

LEAST_AXES = 3
"""Of a batch: with channels or without, there is at least one of space, and one more of either."""

OF_SHAPES = (ValueError, IndexError)
"""What models that take shapes apart raise of inputs that they do not take; `CannotRunError` is one of them."""


class ModelInputs:
    """The inputs of one explainer as its model takes them; what is found out by runs is kept.

    Args:
        adapter: of the model; replaced where the explainer goes on with another one.
        which: the position, name or path of the explained input, if there are several.
        shared: those of inputs that all images share.
        output: the position or name of the explained one of several outputs.
        channels_told: whether the user has said where the channels are.
    """

    def __init__(
        self,
        adapter: ModelAdapter,
        which: Which,
        shared: Sequence[int | str | Path],
        output: int | str | None,
        *,
        channels_told: bool,
    ):
        self.adapter = adapter
        self._which = which
        self._shared = shared
        self._output = output
        self._channels_told = channels_told
        self._channel_axes: dict[tuple[int, ...], int | None] = {}
        self._ndim: int | None = None

    def channel_axis_of(self, images: Array) -> int | None:
        """Where such images (B, ...), the explained input, have their channels; None if they have none."""
        return self._channel_axes.get(tuple(images.shape[1:]), self.adapter.input_channel_axis)

    def find_channels(self, inputs: Inputs, fitting: Fitting) -> None:
        """Measure where the channels are if the shape leaves several readings; the user's word holds, and may warn."""
        shape = tuple(leaf(inputs, self._which).shape[1:])
        if shape in self._channel_axes:
            return
        first = rows_of(inputs, 0, 1)
        if self._channels_told:
            self._channel_axes[shape] = self.adapter.input_channel_axis
            fitting(lambda: warn_of_other_channels(self.adapter, first, self._which, self._output), first)
        else:
            self._channel_axes[shape] = fitting(
                lambda: measured_channel_axis(self.adapter, first, self._which, self._output), first
            )

    def prepared(self, images: Any) -> Inputs:
        """The inputs as the model takes them, as far as can be told without a run.

        Raises:
            TypeError, ValueError: as `prepare`.
        """
        return prepare(
            self.adapter,
            images,
            self._which,
            self._shared,
            channel_axis=self.adapter.input_channel_axis,
            input_ndim=self._ndim,
        )

    def that_run(self, images: Any) -> Inputs:
        """The inputs with an axis for the batch, or as they were given, where the model runs only so.

        Raises:
            TypeError, ValueError: as `prepare`.
        """
        inputs = self.prepared(images)
        if not self._is_open or inputs.ndim == images.ndim or images.ndim < LEAST_AXES:
            return inputs
        for each in (inputs, self.adapter.as_array(images)):  # an axis was added, as a layer of the model suggests
            try:
                self.adapter.output_shapes(rows_of(each, 0, 1))
            except CannotRunError:
                continue
            self._ndim = each.ndim
            return each
        return inputs

    def of_what_runs(self, images: Any, inputs: Inputs, work: Callable[[Inputs], Work]) -> Work:
        """The work with the inputs, or, if the model runs only so, with all of them as one image: a clip, for example.

        Raises:
            CannotRunError, ValueError, IndexError: if it runs on neither; what it said of the inputs as they are.
        """
        try:
            return work(inputs)
        except OF_SHAPES as error:
            refused = isinstance(error, FusionCamError) and not isinstance(error, CannotRunError)
            as_one = None if refused else self._as_one_image(images, inputs)
            if as_one is None:
                if isinstance(error, CannotRunError):
                    self._tell_of_too_many_axes(inputs, error)
                raise
        return work(as_one)

    @property
    def _is_open(self) -> bool:
        """Whether it is not known how many axes the one input has."""
        return self._which is None and self._ndim is None and not self.adapter.input_ndim_is_declared

    def _as_one_image(self, images: Any, inputs: Inputs) -> Array | None:
        """The array as a batch of one, if the model runs on that, and not on the inputs as they are.

        A model that takes frames apart by itself has layers that expect an axis less than it does.
        """
        if not self._is_open or inputs.ndim != images.ndim or self._runs(rows_of(inputs, 0, 1)):
            return None  # what was raised is not about the shape, but about targets, for example
        as_one = self.adapter.namespace.expand_dims(inputs, axis=0)
        if not self._runs(as_one):
            return None
        self._ndim = as_one.ndim
        return as_one

    def _runs(self, inputs: Inputs) -> bool:
        try:
            self.adapter.output_shapes(inputs)
        except OF_SHAPES:
            return False
        return True

    def _tell_of_too_many_axes(self, inputs: Inputs, error: CannotRunError) -> None:
        """Raise the error with what a layer of the model says of its inputs, if these have more axes."""
        if self._which is not None:
            return
        expected = expected_ndim(self.adapter, self.channel_axis_of(inputs), inputs)
        if expected is not None and inputs.ndim > expected:
            raise CannotRunError(
                f"As far as its layers tell, {self.adapter.model_name} takes a batch of images with {expected} axes "
                f"(or {expected - 1} for one image): got an array of shape {tuple(inputs.shape)}. {error}"
            ) from error

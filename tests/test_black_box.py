"""Models that answer and show nothing else: what can be explained of them, and what cannot."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from fusioncam_core.errors import GradientsUnavailableError
from fusioncam_core.explainers.gradient import GradCAM
from fusioncam_core.explainers.region import ScoreCAM
from fusioncam_core.explainers.region_sampled import RISE
from fusioncam_core.models.black_box import BlackBox

torch = pytest.importorskip("torch")


class TestBlackBox:
    @staticmethod
    def answer(images: Any) -> Any:
        """Class 1 looks at the right half, class 0 at the left."""
        half = images.shape[-1] // 2
        return np.stack([images[..., :half].mean(axis=(1, 2, 3)), images[..., half:].mean(axis=(1, 2, 3))], axis=1)

    def test_numpy(self) -> None:
        seen: list[Any] = []

        def answer(images: Any) -> Any:
            seen.append(images)
            return 9 * self.answer(images)

        images = np.ones((2, 3, 12, 12))
        explanation = RISE(BlackBox(answer, input_ndim=4), masks=300)(images, [[0, 1]] * 2)
        left, right = explanation.maps[0]
        assert left[:, :6].mean() > left[:, 6:].mean() + 0.3
        assert right[:, 6:].mean() > right[:, :6].mean() + 0.3
        assert isinstance(explanation.maps, np.ndarray)
        assert all(each.dtype == np.float32 for each in seen)
        assert sum(len(each) for each in seen) == explanation.evaluations == 2 + 2 * 300
        one = RISE(BlackBox(answer, input_ndim=4), masks=300)(images[0], [[0, 1]])
        np.testing.assert_allclose(one.maps[0], explanation.maps[0], atol=1e-5)

    def test_another_library_channels_last_and_several_inputs(self) -> None:
        def answer(images: Any, factor: Any) -> Any:
            assert isinstance(images, torch.Tensor)
            return torch.stack([factor * images[:, :4].mean(dim=(1, 2, 3)), images.mean(dim=(1, 2, 3))], dim=1)

        box = BlackBox(answer, channels="last", like=torch.zeros(()))
        inputs = {"images": np.ones((1, 8, 8, 3), np.float32), "factor": torch.full((1,), 5.0)}
        explanation = RISE(box, masks=200, masked_input="images")(inputs, 0)
        assert isinstance(explanation.maps, torch.Tensor)
        assert explanation.maps[0, :4].mean() > explanation.maps[0, 4:].mean() + 0.2

    def test_what_it_cannot_do(self) -> None:
        images = np.ones((1, 3, 12, 12), np.float32)
        with pytest.raises(GradientsUnavailableError, match="answer is a black box: it gives outputs and no gradients"):
            GradCAM(BlackBox(self.answer))(images)
        with pytest.raises(TypeError, match=r"it has no layers to explain.*RISE"):
            ScoreCAM(BlackBox(self.answer))(images)
        assert GradCAM(BlackBox(self.answer)).layers(images) == []

    def test_wrong_arguments(self) -> None:
        with pytest.raises(TypeError, match="Expected a function of images, got a str"):
            BlackBox("model.onnx")
        with pytest.raises(ValueError, match="'first' or 'last': got 'middle'"):
            BlackBox(self.answer, channels="middle")
        with pytest.raises(TypeError, match="floating-point dtype"):
            BlackBox(self.answer, like=np.zeros(1, dtype=np.int64))
        with pytest.raises(TypeError, match="Images are a NumPy array or one like ndarray: got a torch"):
            RISE(BlackBox(self.answer), masks=2)(torch.zeros(1, 3, 4, 4))

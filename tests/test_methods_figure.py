"""A figure of methods by photographs."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from fusioncam_core import Explanation, methods_figure

pytest.importorskip("matplotlib")
pytest.importorskip("PIL.Image")


def explained(method: str = "grad-cam", *, targets: Any = (0, 1), seed: int = 0) -> Explanation:
    """Two images of 8 x 12, whose map is 1 in the row of its number, and 0 elsewhere."""
    asked = np.asarray(targets)
    several = asked.ndim == 2
    images = np.random.default_rng(seed).random((len(asked), 3, 8, 12)).astype(np.float32)
    maps = np.zeros((*asked.shape, 8, 12), dtype=np.float32)
    for place in np.ndindex(asked.shape):
        maps[(*place, sum(place))] = 1
    numbers = np.full(asked.shape, 0.000412 if several else 0.25)
    classes = np.full((len(asked), 3), 1 / 3)
    titles = {"maps": method.title()}
    return Explanation(
        method, "layer", "Net", maps, asked, numbers, numbers, classes, images, 1, 1, titles=titles
    )  # fmt: skip


def panels(figure: Any) -> list[Any]:
    """The axes that show pictures."""
    return [axes for axes in figure.axes if axes.images]


def titles(figure: Any) -> list[str]:
    return [axes.get_title() for axes in figure.axes if axes.get_title()]


def texts(figure: Any) -> str:
    return " ".join(text.get_text() for axes in figure.axes for text in axes.texts)


class TestFigure:
    def test_a_row_an_image_and_a_column_a_method(self) -> None:
        first, second = explained(), explained("score-cam")
        second = replace(second, maps=second.maps[:, ::-1])
        figure = methods_figure({"one": first, "other": second})
        assert titles(figure) == ["Input", "one", "other"]
        pictures = [axes.images[0].get_array() for axes in panels(figure)[:6]]
        # In the first image's map the first row is bright, in the second's the second, upside down by the other method.
        brightest = [int(np.asarray(each)[..., 0].astype(float).mean(axis=1).argmax()) for each in pictures]
        assert [brightest[place] for place in (1, 2, 4, 5)] == [0, 7, 1, 6]

    def test_by_their_own_titles_and_labels(self) -> None:
        figure = methods_figure([explained(), explained("score-cam")], class_names=["cat", "dog", "cow"])
        assert titles(figure) == ["Input", "Grad-Cam", "Score-Cam"]
        assert "dog" in texts(figure)
        assert "p = 0.25" in texts(figure)

    def test_several_targets_are_rows(self) -> None:
        figure = methods_figure({"one": explained(targets=[[0, 1], [2, 1]])})
        assert len(panels(figure)) >= 2 * 4
        assert "p = 0.00041" in texts(figure), "a small probability is not rounded to nothing"
        assert len(panels(methods_figure({"one": explained(targets=[[0, 1], [2, 1]])}, most=1))) < len(panels(figure))

    def test_photographs(self) -> None:
        photographs = [np.full((16, 24, 3), 7, dtype=np.uint8), np.full((16, 24, 3), 99, dtype=np.uint8)]
        figure = methods_figure({"one": explained()}, photographs)
        assert titles(figure) == ["Photograph", "one"]
        shown = [np.asarray(axes.images[0].get_array()) for axes in panels(figure)]
        assert (shown[0] == 7).all()
        assert (shown[2] == 99).all()

    def test_dots_per_inch(self) -> None:
        assert methods_figure({"one": explained()}, dpi=50).dpi == 50
        finer = methods_figure({"one": explained()}, [np.zeros((64, 96, 3), dtype=np.uint8)] * 2, dpi="photograph")
        assert round(panels(finer)[0].get_position().width * finer.get_figwidth() * finer.dpi) == 96


class TestBadInput:
    @pytest.mark.parametrize(
        ("explanations", "options", "kind", "message"),
        [
            ({}, {}, TypeError, "Expected explanations, one or more"),
            (3, {}, TypeError, "Expected explanations.*: got int"),
            ({"one": np.zeros(3)}, {}, TypeError, "Expected explanations"),
            ([explained(), explained()], {}, ValueError, "Two explanations are of one method"),
            ([explained(), explained("b", targets=(0, 2))], {}, ValueError, r"'B' has targets \[0, 2\], and the first"),
            ([explained(), explained("b", targets=(0,))], {}, ValueError, "the same images and targets"),
            ([explained(), explained("b", seed=1)], {}, ValueError, "those of 'B' are others"),
            ([explained()], {"photographs": []}, ValueError, "There are 2 images, but 0 photographs"),
            ([explained()], {"class_names": ["a"]}, ValueError, "3 classes, but there are 1 class names"),
            ([explained()], {"dpi": 0}, ValueError, r"dpi lies in \[10, 2000\].*: got 0"),
            ([explained()], {"most": 0}, ValueError, "most is a whole number of at least 1: got 0"),
        ],
    )
    def test_it(self, explanations: Any, options: dict[str, Any], kind: type[Exception], message: str) -> None:
        with pytest.raises(kind, match=message):
            methods_figure(explanations, **options)

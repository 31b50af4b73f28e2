"""What an explainer returns: the maps, every stage on the way to them, and the numbers."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, fields, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import numpy as np

from fusioncam_core.arrays.namespaces import Array, Namespace, to_numpy

if TYPE_CHECKING:
    from matplotlib.figure import Figure

    from fusioncam_core.data.preprocessing import Preprocessing
    from fusioncam_core.results.figures import PictureFormat
    from fusioncam_core.results.style import Scale


@dataclass(frozen=True, repr=False, eq=False)
class Explanation:
    """Maps of a batch of images; `T` below is () for one target an image and (K,) for K.

    Arrays are of the model's framework, on its device; `numpy()` gives the same as NumPy.

    Attributes:
        method: the explainer's name, such as "fusion-cam".
        layer: the path of the explained layer.
        model: the name of the model's class.
        maps: (B, *T, *spatial) float32 in [0, 1], of the input's spatial size.
        targets: (B, *T) the explained classes.
        scores: (B, *T) their logits for the plain images.
        probabilities: (B, *T) their probabilities for the plain images.
        class_probabilities: (B, classes) of all classes, for the plain images.
        images: (B, ...) the inputs as the model got them.
        image_channel_axis: in `images`, counted from either end; None if they have no channels.
        evaluations: how many images the model was run on, masked and plain.
        parts: for Fusion-CAM the stages "gradient", "denoised", "region", "union" and "similarity", each
            like `maps`.
        weights: for Fusion-CAM (B, *T) each: "probability_*" under the masks named, "contribution_*" (the
            probability above black), "weight_*" of the union and "fusion_weight_*" of the fusion.
        masks_run: (B,) how many masks of each image were run, of methods that may leave some out (`budget`,
            `tolerance`); None of others.
        uncertainty: (B, *T) how far their region map may still move at any position, as far as can be told; 0 where all
            masks were run.
        names: (B) of the files the images came from, where they came from files: their paths below the source, without
            ending, as in `cat/001`; else none.
        indices: (B) the images' places in the source they came from, as `explain_many` counts them; else none.
        files: (B) the paths of the files they came from; else none.
        titles: what "maps" and the parts worth a picture are called there.
        raw_range: (B, *T, 2) the lowest and the highest value of each map before it was normalised: where it was,
            `map * (high - low) + low` is the raw map. None of maps that have none.
        target_names: (B)(K) what the functions are called that were explained in the place of classes, of which
            `targets` has the positions, or -1 beside classes; "" for a class, and none at all where all are classes.
    """

    method: str
    layer: str
    model: str
    maps: Array
    targets: Array
    scores: Array
    probabilities: Array
    class_probabilities: Array
    images: Array
    image_channel_axis: int | None
    evaluations: int
    parts: dict[str, Array] = field(default_factory=dict)
    weights: dict[str, Array] = field(default_factory=dict)
    titles: dict[str, str] = field(default_factory=dict)
    masks_run: Array | None = None
    uncertainty: Array | None = None
    names: tuple[str, ...] = ()
    indices: tuple[int, ...] = ()
    files: tuple[str, ...] = ()
    raw_range: Array | None = None
    target_names: tuple[tuple[str, ...], ...] = ()

    # Equal by the values of arrays, which have no hash.
    __hash__ = None  # type: ignore[assignment]

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, Explanation):
            return NotImplemented
        return all(_equal(getattr(self, each.name), getattr(other, each.name)) for each in fields(self))

    def numpy(self) -> Explanation:
        """The same explanation with every array as NumPy."""
        arrays: dict[str, Any] = {name: to_numpy(getattr(self, name)) for name in self._arrays}
        return replace(
            self,
            **arrays,
            parts={name: to_numpy(part) for name, part in self.parts.items()},
            weights={name: to_numpy(weight) for name, weight in self.weights.items()},
        )

    def save(
        self,
        directory: str | Path,
        names: Sequence[str] | None = None,
        photographs: Sequence[Any] | None = None,
        class_names: Sequence[str] | None = None,
        *,
        pictures: bool = True,
        picture: PictureFormat = "png",
        overwrite: bool = False,
    ) -> list[Path]:
        """Write a picture, the maps (.npz) and the numbers (.json) of every image.

        Nothing is lost by it: a file that is there already is not replaced, unless that is asked for and it is an
        explanation that fusioncam has written. The files of an image are written all or, after an error, none.
        `load_arrays` reads the .npz.

        Args:
            directory: is made if it is not there.
            names: one file name without ending an image, which may have folders in it; None takes the images' own
                names, or `image-0` and so on by their places in the source.
            photographs: what the overlays are drawn on, Pillow images or (H, W, 3) uint8; None takes the inputs.
            class_names: of all classes, for titles and numbers.
            pictures: False leaves them out.
            picture: their format, "png", "pdf" or "svg". `plot` has all options of drawing.
            overwrite: True replaces earlier explanations of these names. Files of others and the photographs
                themselves are never replaced.

        Returns:
            The files written.

        Raises:
            MissingExtra: if Pillow or matplotlib is not installed.
            OSError: if a file cannot be written; the error names it.
            ValueError: if there are not as many names or photographs as images, a name leads out of the directory, a
                file is in the way, or pictures are asked for of maps that are neither 2-D nor, as of clips and volumes,
                3-D.
        """
        from fusioncam_core.results.files import save_explanation

        return save_explanation(
            self.numpy(),
            directory,
            names,
            photographs,
            class_names,
            pictures=pictures,
            picture=picture,
            overwrite=overwrite,
        )

    def plot(
        self,
        photographs: Sequence[Any] | None = None,
        class_names: Sequence[str] | None = None,
        *,
        scale: Scale = "each",
        colour_map: str | None = None,
        alpha: float = 0.7,
        contours: Sequence[float] = (),
        threshold: float = 0.0,
        panels: Sequence[str] | None = None,
        dpi: float | Literal["photograph"] = 200.0,
        preprocessing: Preprocessing | None = None,
        most: int | None = 8,
    ) -> Figure:
        """Draw the maps over the images: a row for each image and target.

        Beside a row stand the class and its probability; below a map its contribution, where the method measured it:
        what the map keeps of the probability, above the baseline (below a fused map, that of the union it is made of).
        A map whose contribution is not positive is drawn in grey and marked "no support". docs/pictures.md shows it.

        Args:
            photographs: what is drawn on, Pillow images or (H, W, 3) uint8, one an image; None takes the inputs. The
                maps cover the whole of each, unless `preprocessing` says where in it the input lies.
            class_names: one per class, in the order of the model's outputs.
            scale: "each" scales each map to its own range, so that colours show where, not how much; "image" draws the
                maps of one image on one scale of their raw values. Choose it to compare classes of one image.
            colour_map: a name that matplotlib knows; None takes "inferno", and "coolwarm" for signed maps, with 0 in
                its middle.
            alpha: in [0, 1], the share of the map's colour where the map is 1; where the map is 0 the photograph is
                untouched.
            contours: levels at which lines are drawn, in (0, 1), or in (-1, 1) without 0 for signed maps.
            threshold: in [0, 1): below it the photograph is untouched.
            panels: which stages are drawn, such as `("gradient", "union", "maps")`: names of `parts`, and "maps". None
                takes those of `titles`.
            dpi: dots per inch, or "photograph": a panel then has as many as the first photograph has pixels.
            preprocessing: of the photographs, which are then drawn whole, the map where the input was cut from, inside
                a dashed frame.
            most: rows; the caption says how many are left out. None draws as many as fit in 60 inches.

        Returns:
            A matplotlib figure, which a notebook shows; `figure.savefig("maps.pdf")` writes it, and `save` writes one
            for each image.

        Raises:
            TypeError: an option is of a wrong type.
            ValueError: an option is out of range, there are not as many photographs as images or names as classes,
                `scale="image"` finds no `raw_range`, or the maps are neither 2-D nor, as of clips and volumes, 3-D.
            MissingExtra: matplotlib or Pillow is not installed.
        """
        from fusioncam_core.results.pictures import plotted
        from fusioncam_core.results.style import Style

        style = Style(scale, colour_map, alpha, contours, threshold, panels, dpi)
        return plotted(self.numpy(), photographs, class_names, style, preprocessing, most)

    def split(self) -> Iterator[Explanation]:
        """The explanation of each image by itself, with the axis of images kept; evaluations are shared out evenly."""
        count = int(self.maps.shape[0])
        for row in range(count):
            own = slice(row, row + 1)
            yield replace(
                self,
                **{name: getattr(self, name)[own, ...] for name in self._arrays},
                parts={name: part[own, ...] for name, part in self.parts.items()},
                weights={name: weight[own, ...] for name, weight in self.weights.items()},
                evaluations=self.evaluations // count + (row < self.evaluations % count),
                names=self.names[own],
                indices=self.indices[own],
                files=self.files[own],
                target_names=self.target_names[own],
            )

    @property
    def _arrays(self) -> list[str]:
        """The attributes that are arrays with a row an image."""
        return [name for name in _ARRAYS if getattr(self, name) is not None]

    def _repr_png_(self) -> bytes:
        from fusioncam_core.results.pictures import overlay_png

        return overlay_png(self.numpy())

    def __repr__(self) -> str:
        shape = "x".join(str(length) for length in self.maps.shape)
        return (
            f"<Explanation of {self.model} by {self.method} at layer {self.layer!r}: maps {shape}, "
            f"{self.evaluations} model evaluations>"
        )


def _equal(first: Any, second: Any) -> bool:
    """Whether two attributes are equal: arrays of one shape by their values, whatever their library; NaN equals NaN."""
    if isinstance(first, dict) and isinstance(second, dict):
        return first.keys() == second.keys() and all(_equal(first[name], second[name]) for name in first)
    if hasattr(first, "shape") and hasattr(second, "shape"):
        return np.array_equal(to_numpy(first), to_numpy(second), equal_nan=True)
    return bool(first == second)


_ARRAYS = (
    "maps",
    "targets",
    "scores",
    "probabilities",
    "class_probabilities",
    "images",
    "masks_run",
    "uncertainty",
    "raw_range",
)


def join(explanations: Sequence[Explanation], xp: Namespace) -> Explanation:
    """One explanation of all images, in their order; evaluations add up."""
    if len(explanations) == 1:
        return explanations[0]

    def rows(pick: Any) -> Array:
        return xp.concat([pick(each) for each in explanations], axis=0)

    first = explanations[0]
    return replace(
        first,
        **{name: rows(lambda each, name=name: getattr(each, name)) for name in first._arrays},
        parts={name: rows(lambda each, name=name: each.parts[name]) for name in first.parts},
        weights={name: rows(lambda each, name=name: each.weights[name]) for name in first.weights},
        evaluations=sum(each.evaluations for each in explanations),
        names=tuple(name for each in explanations for name in each.names),
        indices=tuple(index for each in explanations for index in each.indices),
        files=tuple(file for each in explanations for file in each.files),
        target_names=tuple(names for each in explanations for names in each.target_names),
    )

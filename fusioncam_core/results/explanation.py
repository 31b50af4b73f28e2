"""What an explainer returns: the maps, every stage on the way to them, and the numbers."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field, fields, replace
from operator import index
from os import PathLike, fspath
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import numpy as np

from fusioncam_core.arrays.namespaces import Array, Namespace, array_namespace, indices_like, rows_apart, to_numpy
from fusioncam_core.errors import InvalidIndexError, InvalidTypeError, InvalidValueError
from fusioncam_core.methods.form import FormName
from fusioncam_core.results.objects import THRESHOLD, Components, Threshold, object_boxes, object_masks
from fusioncam_core.results.provenance import Provenance
from fusioncam_core.results.stored import Stored, decoded

if TYPE_CHECKING:
    from matplotlib.figure import Figure

    from fusioncam_core.data.preprocessing import Preprocessing
    from fusioncam_core.results.figures import PictureFormat
    from fusioncam_core.results.style import Scale


@dataclass(frozen=True, repr=False, eq=False)
class Explanation:
    """Maps of a batch of images; `T` below is () for one target an image and (K,) for K.

    It is a row of images: `len(explanation)` says how many, `explanation[0]`, `explanation[-1]` and `explanation[2:5]`
    are the explanations of some of them, and iterating gives that of each. All have the axis of images, also of one.
    Two are equal if all of their values are, on whatever device and in whatever library, and so is their provenance.

    Arrays are of the model's framework, on its device; `numpy()` gives the same as NumPy.

    Attributes:
        method: the explainer's name, such as "fusion-cam".
        layer: the path of the explained layer.
        model: the name of the model's class.
        maps: (B, *T, *spatial) float32, or float64 of a model in float64: in [0, 1] and of the input's spatial size,
            unless the explainer's `relu`, `normalised` and `size` say otherwise. `form` says which values they are.
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
        provenance: how it came to be: versions, the method with all of its options, layers, device, and the digest of
            the weights where it was asked for; None of one that was put together by hand.
        target_names: (B)(K) what the functions are called that were explained in the place of classes, of which
            `targets` has the positions, or -1 beside classes; "" for a class, and none at all where all are classes.
        raw_range: (B, *T, 2) the lowest and highest value of each map before it was normalised, in the method's own
            units: of maps in [0, 1] `map * (high - low) + low` is the raw map, of signed ones `map * max(-low, high)`.
            None of maps that are not normalised, of several layers' maps combined, and of methods that have none.
        form: of the maps: "normalised", in [0, 1]; "signed", in [-1, 1] with 0 for what speaks neither for the target
            nor against it; or "raw", in the method's own units.

    Examples:
        >>> import torch
        >>> from fusioncam_core import GradCAM
        >>> model = torch.nn.Sequential(torch.nn.ReLU(), torch.nn.AdaptiveAvgPool2d(1), torch.nn.Flatten())
        >>> strip = torch.tensor([[[[4.0, 2, 0, 0]], [[0, 0, 0, 8]]]])  # red on the left, green on the right
        >>> explanation = GradCAM(model, "0")(torch.cat([strip, strip]), targets=[0, 1])
        >>> explanation
        <Explanation of Sequential by grad-cam at layer '0': maps 2x1x4, 2 model evaluations>
        >>> len(explanation), explanation[1].maps
        (2, tensor([[[0., 0., 0., 1.]]]))
        >>> explanation.scores, explanation.form
        (tensor([1.5000, 2.0000]), 'normalised')
        >>> explanation.raw_range[0]  # what was normalised to 0 and 1
        tensor([0., 1.])
        >>> explanation.numpy().probabilities.round(4)
        array([0.3775, 0.6225], dtype=float32)
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
    provenance: Provenance | None = None
    target_names: tuple[tuple[str, ...], ...] = ()
    raw_range: Array | None = None
    form: FormName = "normalised"

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

        The .npz has everything, and `Explanation.load` gives it back: the input as well, without which it would not be
        the same. One of 3 x 224 x 224 takes at most 560 kB of it, a map 130 kB: a Fusion-CAM 1.4 MB in all.

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

    def report(
        self,
        path: str | Path,
        photographs: Sequence[Any] | None = None,
        class_names: Sequence[str] | None = None,
        *,
        preprocessing: Preprocessing | None = None,
        panels: Sequence[str] | None = None,
        title: str | None = None,
        overwrite: bool = False,
    ) -> Path:
        """Write one HTML file with the maps over the photographs, to look through in a browser: `write_report`.

        Args:
            path: of the file, which ends in `.html`.
            photographs: one an image, Pillow images or (H, W, 3) uint8; None takes the inputs.
            class_names: one per class, in the order of the model's outputs.
            preprocessing: of the photographs, which are then shown whole, the map where the input was cut from.
            panels: which stages are in it, names of `parts` and "maps"; None takes those of `titles`.
            title: of the page; None says by which method.
            overwrite: True replaces an earlier report of that name. Other files are never replaced.

        Returns:
            The path of the file.

        Raises:
            TypeError, ValueError, OSError, MissingExtra: as `write_report`.
        """
        from fusioncam_core.results.report import write_report

        return write_report(
            path,
            self,
            photographs,
            class_names,
            preprocessing=preprocessing,
            panels=panels,
            title=title,
            overwrite=overwrite,
        )

    def boxes(
        self,
        threshold: Threshold = THRESHOLD,
        *,
        percentile: float | None = None,
        components: Components = "all",
        minimum_area: int = 1,
    ) -> Any:
        """The boxes around the objects of each map, the largest object first: `fusioncam_core.object_boxes`.

        Args:
            threshold: a share of the map's largest value, in [0, 1]; "otsu"; or "percentile".
            percentile: in [0, 100], with `threshold="percentile"`.
            components: "all" objects or the "largest" one.
            minimum_area: objects of fewer pixels are left out.

        Returns:
            Of maps (B, *spatial) B lists of `Box`, in pixels of the maps; of (B, K, *spatial) B lists of K lists. A map
            that is constant or nowhere positive has none.

        Raises:
            ValueError: for NaN in a map, or an option out of range.
            MissingExtra: if SciPy is not installed.
        """
        return object_boxes(
            self.maps,
            threshold,
            percentile=percentile,
            components=components,
            minimum_area=minimum_area,
            spatial_ndim=self.maps.ndim - self.targets.ndim,
        )

    def masks(
        self,
        threshold: Threshold = THRESHOLD,
        *,
        percentile: float | None = None,
        components: Components = "all",
        minimum_area: int = 1,
    ) -> np.ndarray[Any, Any]:
        """The pixels of the objects of each map: `fusioncam_core.object_masks`.

        Args:
            threshold: and the others as for `boxes`.
            percentile: with `threshold="percentile"`.
            components: "all" objects or the "largest" one.
            minimum_area: objects of fewer pixels are left out.

        Returns:
            Booleans of the maps' shape, NumPy's.

        Raises:
            ValueError: for NaN in a map, or an option out of range.
            MissingExtra: if SciPy is not installed.
        """
        return object_masks(
            self.maps,
            threshold,
            percentile=percentile,
            components=components,
            minimum_area=minimum_area,
            spatial_ndim=self.maps.ndim - self.targets.ndim,
        )

    @classmethod
    def load(cls, path: str | Path | Sequence[str | Path]) -> Explanation:
        """The explanation that `save` wrote, of NumPy arrays: equal to the one that was saved, bit for bit.

        Arrays of dtypes that NumPy lacks, such as bfloat16, come back as float32, which holds all their values.

        Args:
            path: of the .npz of one image, or the same without the ending; or several of them, whose explanations
                become one in that order. They must be of one method, model and layer, made in the same way, and their
                arrays of the same shapes.

        Raises:
            TypeError: if it is neither a path nor a list of them.
            ValueError: if there is no such file; if it is no explanation, damaged, or in the schema of another version
                of fusioncam, the message says which; if there is no path at all, or explanations do not belong
                together.
            OSError: if a file cannot be read.
        """
        if isinstance(path, str | PathLike):
            return cls._loaded(path)
        paths = _listed(path)
        loaded = [cls._loaded(each) for each in paths]
        for each, own in zip(loaded, paths, strict=True):
            name = _unlike(loaded[0], each)
            if name is not None:
                raise InvalidValueError(
                    f"Expected explanations that can be one, got {fspath(paths[0])!r} and {fspath(own)!r}, which "
                    f"differ in {name}. Load them one by one."
                )
        return join(loaded, array_namespace(loaded[0].maps))

    @classmethod
    def _loaded(cls, path: str | Path) -> Explanation:
        stored = decoded(path, _ARRAYS)
        own: dict[str, Any] = {**stored.fields, **stored.arrays}
        return cls(**own, parts=stored.parts, weights=stored.weights)

    def _stored(self) -> Stored:
        """Of one image: what its file holds."""
        apart = (*_ARRAYS, "parts", "weights")
        plain = {each.name: getattr(self, each.name) for each in fields(self) if each.name not in apart}
        return Stored(plain, {name: getattr(self, name) for name in self._arrays}, self.parts, self.weights)

    def __len__(self) -> int:
        """How many images."""
        return int(self.maps.shape[0])

    def __getitem__(self, place: int | slice) -> Explanation:
        """The explanation of one image or of some, with the axis of images; evaluations are shared out evenly.

        Raises:
            InvalidIndexError: an `IndexError`, if there is no such image.
            TypeError: if the place is neither a number nor a slice.
        """
        return self._of(_rows(place, len(self)), _of_rows)

    def _of(self, rows: range, taken: Callable[[Array, range], Array]) -> Explanation:
        """The explanation of some images, whose part of every array is taken so."""
        of_images: dict[str, Any] = {
            name: tuple(own[row] for row in rows) for name in _OF_IMAGES if (own := getattr(self, name))
        }
        each, rest = divmod(self.evaluations, max(1, len(self)))
        return replace(
            self,
            **{name: taken(getattr(self, name), rows) for name in self._arrays},
            parts={name: taken(part, rows) for name, part in self.parts.items()},
            weights={name: taken(weight, rows) for name, weight in self.weights.items()},
            evaluations=sum(each + (row < rest) for row in rows),
            **of_images,
        )

    def __iter__(self) -> Iterator[Explanation]:
        """The explanation of each image by itself."""
        if not len(self):  # which not every library takes apart
            return
        arrays = [*(getattr(self, name) for name in self._arrays), *self.parts.values(), *self.weights.values()]
        distinct = {id(array): array for array in arrays}
        for number, row in enumerate(rows_apart(list(distinct.values()))):
            own = dict(zip(distinct, row, strict=True))
            yield self._of(range(number, number + 1), lambda array, _, own=own: own[id(array)])  # type: ignore[misc]

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


def _rows(place: Any, count: int) -> range:
    """The images that an index means, by their places."""
    if isinstance(place, slice):
        return range(*place.indices(count))
    row = _integer(place)
    if row is None:
        raise InvalidTypeError(
            f"Expected the place of an image, or a slice such as [2:5], got {place!r}. The arrays are attributes: "
            "explanation.maps, explanation.parts."
        )
    if not -count <= row < count:
        raise InvalidIndexError(f"Expected a place from {-count} to {count - 1} among {count} images, got {row}.")
    return range(row % count, row % count + 1)


def _integer(place: Any) -> int | None:
    if isinstance(place, bool | np.bool_):
        return None
    try:
        return index(place)
    except TypeError:  # which arrays of several numbers raise as well
        return None


def _of_rows(array: Array, rows: range) -> Array:
    if rows.step > 0:
        return array[rows.start : max(rows.start, rows.stop) : rows.step, ...]
    xp = array_namespace(array)  # of which not all slice backwards
    return xp.take(array, indices_like(list(rows), array, xp), axis=0)


_OF_IMAGES = ("names", "indices", "files", "target_names")
"""Attributes that are tuples with an entry an image, or none."""

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
    of_images: dict[str, Any] = {
        name: tuple(own for each in explanations for own in getattr(each, name)) for name in _OF_IMAGES
    }
    return replace(
        first,
        **{name: rows(lambda each, name=name: getattr(each, name)) for name in first._arrays},
        parts={name: rows(lambda each, name=name: each.parts[name]) for name in first.parts},
        weights={name: rows(lambda each, name=name: each.weights[name]) for name in first.weights},
        evaluations=sum(each.evaluations for each in explanations),
        **of_images,
    )


def _listed(paths: Any) -> list[str | Path]:
    """The paths, if they are some."""
    if not isinstance(paths, list | tuple) or not all(isinstance(each, str | PathLike) for each in paths):
        raise InvalidTypeError(f"Expected the path of an explanation, or a list of them, got {paths!r}.")
    if not paths:
        raise InvalidValueError("Expected the path of an explanation, or several, got none.")
    return list(paths)


def _unlike(first: Explanation, second: Explanation) -> str | None:
    """In what two explanations differ that cannot be joined; None if they can be."""
    own = (*_ARRAYS, "parts", "weights", "evaluations", *_OF_IMAGES)
    plain = (each.name for each in fields(first) if each.name not in own)
    differ = [name for name in plain if getattr(first, name) != getattr(second, name)]
    differ += [name for name in _OF_IMAGES if bool(getattr(first, name)) != bool(getattr(second, name))]
    arrays, others = _arrays_by_name(first), _arrays_by_name(second)
    differ += sorted(arrays.keys() ^ others.keys())
    shared = arrays.keys() & others.keys()
    differ += [name for name in sorted(shared) if arrays[name].shape[1:] != others[name].shape[1:]]
    return differ[0] if differ else None


def _arrays_by_name(explanation: Explanation) -> dict[str, Array]:
    return {
        **{name: getattr(explanation, name) for name in explanation._arrays},
        **{f"parts[{name!r}]": part for name, part in explanation.parts.items()},
        **{f"weights[{name!r}]": weight for name, weight in explanation.weights.items()},
    }

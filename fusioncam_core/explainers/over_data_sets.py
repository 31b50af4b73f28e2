"""What an explainer does with images from wherever they come: one after the other, or into a folder."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

from fusioncam_core.explainers.dataset import OnError, explain_many
from fusioncam_core.explainers.options import KeptMaps
from fusioncam_core.results.explanation import Explanation

if TYPE_CHECKING:
    from fusioncam_core.explainers.base import Explainer
    from fusioncam_core.jobs.run import Estimate, JobResult


class OverDataSets:
    """The part of an explainer that is about many images."""

    def explain_many(
        self,
        source: Any,
        targets: Any = None,
        *,
        preprocessing: Callable[[Any], Any] | None = None,
        prefetch: int = 2,
        progress: bool | None = None,
        on_error: OnError = "raise",
    ) -> Iterator[Explanation]:
        """Explain images from wherever they come, one after the other.

        They are explained in groups, whatever batches they come in: the masks of a group share the batches that the
        model sees. The next groups are read meanwhile, in another thread.

        Args:
            source: an array (N, ...) of any framework; a folder of photographs, or a list of files; or anything that
                yields batches, such as PyTorch's DataLoader or a `tf.data.Dataset`: arrays (n, ...), pairs (images,
                labels), or mappings with "image" or "pixel_values" (and "label"). For a model with several inputs,
                tuples or mappings of them, alone or in a pair with labels.
            targets: as for a call, the same for all images; or "labels", those of the source; or one row for each image
                of the source.
            preprocessing: of photographs: from a Pillow image to one input, as a `LoadedModel` has it.
            prefetch: how many groups are read ahead; 0 for none, without a thread.
            progress: a bar that counts images: True, False, or None to show it when somebody watches a terminal.
            on_error: what becomes of an image that cannot be explained, or whose preprocessing raises: "raise" ends
                with an error that names it, "skip" leaves it out with a `SkippedImageWarning` that does. The others of
                its group are explained one by one.

        Yields:
            The explanation of each image in turn, with an axis of one image: maps (1, *spatial) or (1, K, *spatial),
            and in `indices` its place in the source. Those of photographs have `names`: the files' paths below the
            folder, or below the deepest folder that holds all files of a list, without their ending; no two are alike
            (see `fusioncam_core.names`). So `save` gives each image files of its own. A file that is no photograph is
            left out, with an `UnreadableImageWarning` that names it.

        Raises:
            TypeError, ValueError: as for a call, with the image's place in the source and its name; for a folder
                without photographs, or photographs without preprocessing; for labels or targets that are missing.
        """
        return explain_many(
            cast("Explainer", self),
            source,
            targets,
            preprocessing=preprocessing,
            prefetch=prefetch,
            progress=progress,
            on_error=on_error,
        )

    def explain_to(
        self,
        folder: str | Path,
        source: Any,
        targets: Any = None,
        *,
        preprocessing: Callable[[Any], Any] | None = None,
        class_names: Sequence[str] | None = None,
        maps: KeptMaps = "made",
        piece: int = 1000,
        resume: bool = True,
        on_error: OnError = "skip",
        prefetch: int = 2,
        progress: bool | None = None,
        wait: float = 0.0,
        model_name: str | None = None,
    ) -> JobResult:
        """Explain any number of images into a folder of Parquet files; the same call goes on where it was interrupted.

        For data sets: memory does not grow with the images, what is written stays written, and the rows are those of a
        run that was never interrupted. Needs the extra `jobs`. docs/jobs.md has the columns, and questions in SQL.

        Args:
            folder: with `_job.json`, what the job is of, and `part-000000.parquet` and so on. It is made if it is not
                there.
            source: as for `explain_many`, but nothing that can be read only once. Loaders must give the same images
                in the same order again: no shuffling.
            targets: as for `explain_many`.
            preprocessing: of photographs, likewise.
            class_names: by number, for the column `name`.
            maps: "made" keeps the maps as they are made, in the input's size or the one that `size=` says; a size such
                as (7, 7) keeps smaller ones; None keeps none. Their values are rounded to float16.
            piece: images in a file: what is done again at most after an interruption.
            resume: whether to go on with a job that is there; False refuses one.
            on_error: as for `explain_many`; an image that is left out has a row with its reason in `error`.
            prefetch: how many groups are read ahead, likewise.
            progress: as for `explain_many`, and with None and True a line each half a minute where nobody watches.
            wait: seconds to wait for another process that works in the folder.
            model_name: of a model that shows no weights: another one whenever the model changes.

        Returns:
            What was done, how fast, and how many images were left out.

        Raises:
            TypeError, ValueError: as for `explain_many`; for a folder with something else in it, or with a job of
                another model, method, source or targets, which is said in words.
            FolderInUseError: another process works in the folder.
            MissingExtra: pyarrow or filelock is not installed.
        """
        from fusioncam_core.explainers.job import Asked, explain_to  # with what it takes to keep results: few need it

        asked = Asked(targets, preprocessing, class_names, maps, piece, on_error, prefetch, model_name)
        return explain_to(cast("Explainer", self), folder, source, asked, resume=resume, progress=progress, wait=wait)

    def estimate(self, images: Any, count: int, targets: Any = None, *, seconds: float = 8.0) -> Estimate:
        """How long so many images would take, by explaining a few until it is known how they run best.

        Args:
            images: a hundred or so such as those to come, an array (n, ...); they are read from memory, so that slow
                disks and decoding are not in the estimate.
            count: how many there are to be.
            targets: as for `explain_many`.
            seconds: for which the best way is looked for, at most, and a quarter of which it is timed.

        Raises:
            TypeError, ValueError: as for `explain_many`.
        """
        from fusioncam_core.explainers.job import estimate  # as above

        return estimate(cast("Explainer", self), images, count, targets, seconds=seconds)

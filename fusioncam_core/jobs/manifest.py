"""What a job is of: written before its first row, and looked at by every run that goes on with it."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from fusioncam_core.errors import InvalidValueError
from fusioncam_core.results.writing import whole_file

FILE = "_job.json"

FORMAT = 1

ABOUT = {
    "method": "the method, its options or its layers",
    "model": "the model or its weights",
    "source": "the images",
    "targets": "the targets",
    "preprocessing": "the preprocessing",
    "maps": "the size of the kept maps",
    "piece": "how many images a file is of",
    "version": "the version of fusioncam",
}
"""What tells jobs apart, and what each is in words."""


@dataclass(frozen=True)
class Manifest:
    """A job, as `_job.json` has it.

    Attributes:
        made_of: what tells it from others, by the names in `ABOUT`.
        batch_size, memory_format: how the images run, the same in every run, by which results are rounded.
        engine: what ran masked images; None for the model's framework.
        layers: the explained ones.
        weights: the names of the method's weights, which are columns.
        provenance: of its explanations.
        total: how many images the source has, if it says.
    """

    made_of: dict[str, str]
    batch_size: int
    memory_format: str
    layers: list[str]
    weights: list[str]
    provenance: dict[str, Any] = field(default_factory=dict)
    total: int | None = None
    engine: str | None = None

    def write(self, folder: Path) -> None:
        """Put it into the folder, whole or not at all."""
        content = json.dumps({"fusioncam": "job", "format": FORMAT, **asdict(self)}, indent=1)
        with whole_file(folder / FILE) as file:
            file.write(f"{content}\n".encode())


def found(folder: Path) -> Manifest | None:
    """The job in a folder; None if there is nothing yet.

    Raises:
        InvalidValueError: if the folder holds something else, or a job of another format.
    """
    path = folder / FILE
    if not path.exists():
        others = sorted(each.name for each in folder.glob("*.parquet")) if folder.is_dir() else []
        if others:
            raise InvalidValueError(
                f"{folder} holds {others[0]} and no {FILE}: it is no job of fusioncam. Give another folder."
            )
        return None
    try:
        values = json.loads(path.read_text(encoding="utf-8"))
        ours = values.pop("fusioncam") == "job"
        form = values.pop("format")
    except (ValueError, LookupError, AttributeError, TypeError):
        ours, form, values = False, None, {}
    if not ours:
        raise InvalidValueError(f"{path} is no job of fusioncam, and is left as it is. Give another folder.")
    if form != FORMAT:
        raise InvalidValueError(
            f"{path} is of format {form}, and this release of fusioncam goes on with format {FORMAT}. Give another "
            "folder."
        )
    try:
        return Manifest(**values)
    except TypeError as error:
        raise InvalidValueError(f"{path} is damaged: {error}. Give another folder, or put the file right.") from error


def require_same(folder: Path, before: Manifest, made_of: dict[str, str]) -> None:
    """Refuse a folder with another job.

    Raises:
        InvalidValueError: naming everything that is another one.
    """
    changed = [words for name, words in ABOUT.items() if before.made_of.get(name) != made_of.get(name)]
    if changed:
        listed = ", ".join(changed[:-1]) + (" and " if len(changed) > 1 else "") + changed[-1]
        raise InvalidValueError(
            f"The job in {folder} is of something else: {listed} changed since it was begun. Its rows stay as they "
            "are: give another folder, or go on with what it was begun with."
        )

"""One image's explanation as a file of arrays, NAME.npz: everything in it, and nothing that is run when it is read.

The file holds, each as NumPy writes it:

- `fusioncam`: the schema's number;
- `explanation`: a text of JSON with the fields that are no arrays, and the names of the parts and the weights;
- the arrays by the names of their fields, `parts/PART` and `weights/WEIGHT`, without the axis of images.
"""

from __future__ import annotations

import io
import json
import math
import os
import struct
import sys
import tokenize
import zipfile
import zlib
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from fusioncam_core.errors import InvalidTypeError, InvalidValueError
from fusioncam_core.methods.form import FORM_NAMES
from fusioncam_core.results.provenance import Provenance
from fusioncam_core.results.writing import MARK

Values = npt.NDArray[Any]

SCHEMA = 2
"""Of NAME.npz and NAME.json, as both say; what is laid out otherwise has another number."""

TEXT = "explanation"
"""The entry of what is no array."""

PARTS, WEIGHTS = "parts/", "weights/"
"""What the names of parts and weights begin with, so that they are nobody else's, whatever a layer is called."""

REQUIRED = ("maps", "targets", "scores", "probabilities", "class_probabilities", "images")
"""The arrays that every explanation has."""

OF_TARGETS = ("scores", "probabilities", "uncertainty")
"""Those with one number a target."""

_LONGEST_TEXT = 1 << 26
"""Bytes of the entries that are read before it is known how large the arrays are."""

_STORED = (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED)
"""The compressions that NumPy writes."""

_ENCRYPTED = 1
"""The flag of an entry with a password."""

_BROKEN = (
    zipfile.BadZipFile,
    zlib.error,
    struct.error,
    tokenize.TokenError,
    ValueError,
    TypeError,
    LookupError,
    EOFError,
    SyntaxError,
    OverflowError,
    MemoryError,
    RecursionError,
    NotImplementedError,
    OSError,
)
"""What reading raises of files that are damaged, or of others."""


class Stored(NamedTuple):
    """What a file holds, with an axis of one image.

    Attributes:
        fields: those of the explanation that are no arrays, by name.
        arrays: those that are.
        parts: by name.
        weights: by name.
    """

    fields: dict[str, Any]
    arrays: dict[str, Values]
    parts: dict[str, Values]
    weights: dict[str, Values]


class _Refused(ValueError):
    """Why a file is no explanation, as the end of a sentence."""


def encoded(stored: Stored) -> bytes:
    """The file. Arrays of dtypes that NumPy lacks, such as bfloat16, become float32, which holds all their values.

    Raises:
        InvalidTypeError: for arrays of anything but numbers.
    """
    provenance = stored.fields.get("provenance")
    values = {
        **stored.fields,
        "provenance": None if provenance is None else provenance.to_json(),
        "parts": list(stored.parts),
        "weights": list(stored.weights),
    }
    arrays = {
        **stored.arrays,
        **{f"{PARTS}{name}": part for name, part in stored.parts.items()},
        **{f"{WEIGHTS}{name}": weight for name, weight in stored.weights.items()},
    }
    entries: dict[str, Any] = {
        MARK: np.asarray(SCHEMA),
        TEXT: np.asarray(json.dumps(values, default=_number)),
        **{name: _numbers(name, array)[0] for name, array in arrays.items()},
    }
    buffer = io.BytesIO()
    np.savez_compressed(buffer, **entries)
    return buffer.getvalue()


def _number(value: Any) -> Any:
    """A number of NumPy's as one of Python's."""
    if not isinstance(value, np.generic):
        raise InvalidTypeError(f"Expected text or a number in an explanation, got a {type(value).__qualname__}.")
    return value.item()


def _numbers(name: str, array: Any) -> Values:
    values = np.asarray(array)
    if values.dtype.kind in "biufc":
        return values
    if values.dtype.kind == "V" and values.dtype.names is None and np.can_cast(values.dtype, np.float32):
        return values.astype(np.float32)  # of ml_dtypes, exactly
    raise InvalidTypeError(f"Expected numbers in {name!r} of an explanation, got an array of {values.dtype}.")


def decoded(path: str | Path, arrays: Iterable[str]) -> Stored:
    """What `encoded` made a file of.

    The sizes of all arrays are looked at before one is read.

    Args:
        path: of the file; its ending may be left out.
        arrays: the names of the fields that are arrays.

    Raises:
        ValueError: if there is no such file, or it is no explanation, damaged, or in another schema.
        OSError: if it cannot be read.
    """
    where = _file(path)
    with where.open("rb") as file:
        try:
            with zipfile.ZipFile(file) as entries:
                return _decoded(entries, frozenset(arrays))
        except _BROKEN as error:
            ours = isinstance(error, _Refused | InvalidValueError)
            reason = str(error).rstrip(".") if ours else f"it cannot be read ({type(error).__name__}: {error})"
            text = f"Expected an explanation in schema {SCHEMA}, got {os.fspath(where)!r}: {reason}."
            raise InvalidValueError(text) from error


def _file(path: str | Path) -> Path:
    given = Path(path)
    found = given if given.suffix == ".npz" else given.with_name(f"{given.name}.npz")
    if not found.is_file():
        raise InvalidValueError(
            f"Expected the .npz file of an explanation, got {os.fspath(path)!r}: there is no file "
            f"{os.fspath(found)!r}. `save` returns the files that it has written; each image has one of its own."
        )
    return found


def _decoded(entries: zipfile.ZipFile, known: frozenset[str]) -> Stored:
    names = _names(entries)
    values = _values(_read_text(entries))
    parts, weights = (_texts(values.pop(key, None), key) for key in ("parts", "weights"))
    of_parts = {f"{PARTS}{name}": name for name in parts}
    of_weights = {f"{WEIGHTS}{name}": name for name in weights}
    arrays = [name for name in names if name in known]
    left = set(names) - {MARK, TEXT, *of_parts, *of_weights, *arrays}
    missing = {*REQUIRED, *of_parts, *of_weights} - set(names)
    if left or missing:
        raise _Refused(f"it has {_listed(left) or 'nothing'} too much, and lacks {_listed(missing) or 'nothing'}")
    _require_one_image({name: _header(entries, name) for name in (*arrays, *of_parts, *of_weights)})
    return Stored(
        _fields(values),
        {name: _read(entries, name) for name in arrays},
        {name: _read(entries, entry) for entry, name in of_parts.items()},
        {name: _read(entries, entry) for entry, name in of_weights.items()},
    )


def _listed(names: Iterable[str]) -> str:
    return ", ".join(repr(name) for name in sorted(names)[:10])


# --- entries


class _Header(NamedTuple):
    """What an entry says of its array."""

    shape: tuple[int, ...]
    dtype: np.dtype[Any]


def _names(entries: zipfile.ZipFile) -> list[str]:
    """Of all entries, once it is known that they are an explanation's, in this schema."""
    infos = entries.infolist()
    names = [each.filename.removesuffix(".npy") for each in infos]
    usual = all(each.compress_type in _STORED and not each.flag_bits & _ENCRYPTED for each in infos)
    if not usual or len(set(names)) != len(names) or MARK not in names:
        raise _Refused(f"it holds something else, {_listed(names) or 'nothing'}")
    header = _header(entries, MARK)
    if header.shape != () or header.dtype.kind not in "iu":
        raise _Refused("its schema is no number")
    schema = int(_read(entries, MARK)[0])
    if schema > SCHEMA:
        raise _Refused(f"its schema is {schema}, of a later version of fusioncam: update fusioncam to read it")
    if schema != SCHEMA:
        raise _Refused(
            f"its schema is {schema}, of an earlier version of fusioncam, which kept neither the inputs nor how the "
            "map was made. numpy.load reads the arrays in it; explain the image again to have all"
        )
    return names


def _header(entries: zipfile.ZipFile, name: str) -> _Header:
    """What an entry says of its array, if it is as long as it says."""
    info = entries.getinfo(f"{name}.npy")
    with entries.open(info) as file:
        version = np.lib.format.read_magic(file)
        if version != (1, 0):
            raise _Refused(f"{name!r} is no array as NumPy writes them")
        shape, _, dtype = np.lib.format.read_array_header_1_0(file)
        length = file.tell()
    if dtype.hasobject or math.prod(shape) * dtype.itemsize + length != info.file_size:
        raise _Refused(f"{name!r} is no array of numbers, or not as long as it says")
    return _Header(shape, dtype)


def _read(entries: zipfile.ZipFile, name: str) -> Values:
    """One array, with an axis of one image in front; never one of objects, which could run anything."""
    values: Values = np.lib.format.read_array(io.BytesIO(entries.read(f"{name}.npy")), allow_pickle=False)
    return values[np.newaxis]


def _read_text(entries: zipfile.ZipFile) -> str:
    header = _header(entries, TEXT)
    if header.shape != () or header.dtype.kind != "U" or header.dtype.itemsize > _LONGEST_TEXT:
        raise _Refused(f"{TEXT!r} is no text")
    text = _read(entries, TEXT)
    # NumPy makes a string of any numbers, which Python then cannot read.
    if text.view(f"{text.dtype.byteorder}u4").max(initial=0) > sys.maxunicode:
        raise _Refused(f"{TEXT!r} holds what are no characters")
    return str(text[0])


# --- what they must be


def _require_one_image(headers: Mapping[str, _Header]) -> None:
    """Refuse arrays that do not belong together: T below is () for one target and (K,) for K."""
    for name, header in headers.items():
        if header.dtype.kind not in ("iu" if name == "targets" else "biufc"):
            raise _Refused(f"{name!r} is of dtype {header.dtype}")
    targets, maps = headers["targets"].shape, headers["maps"].shape
    if len(targets) > 1 or len(maps) <= len(targets) or len(headers["class_probabilities"].shape) != 1:
        raise _Refused(f"there are maps of shape {maps} and targets of shape {targets}")
    for name, header in headers.items():
        if name in OF_TARGETS or name.startswith(WEIGHTS):
            fits = header.shape == targets
        else:
            fits = name in _OF_IMAGES or header.shape[: len(targets)] == targets
        if not fits:
            raise _Refused(f"{name!r} has shape {header.shape}, and the targets {targets}")


_OF_IMAGES = ("class_probabilities", "images", "masks_run")
"""Arrays without an axis of targets."""


def _values(text: str) -> dict[str, Any]:
    values = json.loads(text)
    if not isinstance(values, dict):
        raise _Refused(f"{TEXT!r} is no list of fields")
    return values


def _texts(value: Any, name: str) -> list[str]:
    if not isinstance(value, list) or not all(isinstance(each, str) for each in value):
        raise _Refused(f"its {name} are {value!r:.80}")
    return value


def _fields(values: dict[str, Any]) -> dict[str, Any]:
    """The fields that are no arrays, as the explanation has them."""
    if values.keys() != _FIELDS.keys():
        raise _Refused(f"its fields are {_listed(values)}")
    for name, fits in _FIELDS.items():
        if not fits(values[name]):
            raise _Refused(f"its {name} is {values[name]!r:.80}")
    provenance = values["provenance"]
    return {
        **{name: _tupled(value) for name, value in values.items()},
        "provenance": None if provenance is None else Provenance.from_json(provenance),
    }


def _tupled(value: Any) -> Any:
    """A list of lists as a tuple of tuples; what is no list as it is."""
    return tuple(map(_tupled, value)) if isinstance(value, list) else value


def _is_text(value: Any) -> bool:
    return isinstance(value, str)


def _is_count(value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and value >= 0


def _is_axis(value: Any) -> bool:
    return value is None or (isinstance(value, int) and not isinstance(value, bool))


def _is_texts(value: Any) -> bool:
    return isinstance(value, list) and all(map(_is_text, value))


def _is_titles(value: Any) -> bool:
    return isinstance(value, dict) and all(map(_is_text, value.values()))


def _one(fits: Callable[[Any], bool]) -> Callable[[Any], bool]:
    """Whether it is a list of one such value, or of none."""
    return lambda value: isinstance(value, list) and len(value) <= 1 and all(map(fits, value))


_FIELDS: Mapping[str, Callable[[Any], bool]] = {
    "method": _is_text,
    "layer": _is_text,
    "model": _is_text,
    "image_channel_axis": _is_axis,
    "evaluations": _is_count,
    "titles": _is_titles,
    "names": _one(_is_text),
    "indices": _one(_is_count),
    "files": _one(_is_text),
    "target_names": _one(_is_texts),
    "form": lambda value: value in FORM_NAMES,
    "provenance": lambda value: value is None or isinstance(value, dict),
}
"""Whether what a file says of a field can be it."""

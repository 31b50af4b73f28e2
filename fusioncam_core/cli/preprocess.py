"""`--preprocess`: what happens to photographs before they reach a model whose loader does not say it."""

from __future__ import annotations

import argparse
import difflib
import math
from collections.abc import Sequence
from dataclasses import fields, replace
from types import MappingProxyType
from typing import Any

from fusioncam_core.data.preprocessing import Preprocessing
from fusioncam_core.errors import InvalidValueError

PRESETS = MappingProxyType({
    "imagenet": "scale=1/255,mean=0.485,0.456,0.406,std=0.229,0.224,0.225,colours=rgb",
    "zero-to-one": "scale=1/255,mean=0,std=1,colours=rgb",
    "minus-one-to-one": "scale=1/127.5,mean=1,std=1,colours=rgb",
    "zero-to-255": "scale=1,mean=0,std=1,colours=rgb",
    "caffe": "scale=1,mean=123.68,116.779,103.939,std=1,colours=bgr",
})  # fmt: skip
"""What is done to the values 0..255, as the field names it. Keras' applications have three of them: `imagenet` as
mode="torch", `minus-one-to-one` as mode="tf", and `caffe`, its mean in the order red, green, blue as all means here."""

VALUES = ("scale", "mean", "std")
PLACE = ("size", "crop", "resize", "interpolation", "channels", "colours")

HELP = (
    f"{', '.join(PRESETS)}, or parts such as scale=1/255,mean=0.5,std=0.5,size=224 (also crop, resize, interpolation, "
    "channels, colours): values 0..255 are multiplied by scale, then mean is subtracted, then std divides"
)

Parts = dict[str, list[str]]
"""Of the option, by name: each with one word or more."""


def preprocess_parts(text: str) -> Parts:
    """The parts of `--preprocess`, a preset taken apart; words without "=" belong to the part before them.

    Raises:
        ArgumentTypeError: a word is no part, or a number is none.
    """
    parts: Parts = {}
    name = ""
    for word in (each.strip() for each in text.split(",")):
        key, equals, value = word.partition("=")
        if not equals and word in PRESETS:
            if {*VALUES, "colours"} & parts.keys():
                raise argparse.ArgumentTypeError(f"{word!r} comes first, with parts that change it behind it")
            parts |= preprocess_parts(PRESETS[word])
            name = ""
        elif equals:
            name = _known(key.strip())
            parts[name] = [value.strip()]
        elif name:
            parts[name].append(word)
        else:
            raise argparse.ArgumentTypeError(
                f"{word!r} is neither a preset ({', '.join(PRESETS)}) nor a part such as size=224{_near(word)}"
            )
    try:
        _values(parts)
        _place(parts)
    except InvalidValueError as error:
        raise argparse.ArgumentTypeError(str(error).rstrip(".")) from None
    return parts


def _known(name: str) -> str:
    if name not in (*VALUES, *PLACE):
        raise argparse.ArgumentTypeError(
            f"{name!r} is no part of a preprocessing: {', '.join((*VALUES, *PLACE))} are{_near(name)}"
        )
    return name


def _near(word: str) -> str:
    near = difflib.get_close_matches(word, [*PRESETS, *VALUES, *PLACE], n=1)
    return f"; did you mean {near[0]}?" if near else ""


def preprocessing_of(parts: Parts, own: Any, input_channel_axis: int | None) -> Preprocessing:
    """The preprocessing that the option asks for.

    Args:
        parts: as `preprocess_parts` gives them.
        own: what the model's loader gives: of a `Preprocessing` what the option leaves open is kept.
        input_channel_axis: of the model's batches: 1 or -1, or None if it is not known.

    Raises:
        InvalidValueError: the option leaves something open that the loader does not say either, or a value is out of
            its range.
    """
    base = _without_processor(own) if isinstance(own, Preprocessing) else None
    values, place = _values(parts), _place(parts)
    if base is None:
        missing = "size, such as size=224" if "size" not in place else None
        if not values:
            missing = f"what is done to the values: {', '.join(PRESETS)}, or scale=, mean= and std="
        if missing is not None:
            raise InvalidValueError(
                f"--preprocess: expected {missing}; the model's loader does not say it, and none is guessed."
            )
        if "channels" not in place:
            place["channels"] = _channels(input_channel_axis)
    if base is not None and base.colours == "grey" and place.get("colours") == "rgb":
        del place["colours"]  # of a preset: a model of one channel stays one
    return replace(base or Preprocessing(), **values, **place)


def _without_processor(own: Preprocessing) -> Preprocessing:
    """What the option changes would not be heard by a processor, which makes its arrays by itself."""
    return Preprocessing(**{field.name: getattr(own, field.name) for field in fields(Preprocessing)})


def _channels(axis: int | None) -> str:
    if axis not in (1, -1):
        raise InvalidValueError("--preprocess: expected channels=first or channels=last; the model does not say it.")
    return "first" if axis == 1 else "last"


def _values(parts: Parts) -> dict[str, Any]:
    """`mean` and `std` of the values 0..255; nothing if no part is about them."""
    if not set(VALUES) & parts.keys():
        return {}
    mean, std = _numbers(parts, "mean", [0.0]), _numbers(parts, "std", [1.0])
    for name, numbers in (("mean", mean), ("std", std)):
        if len(numbers) not in (1, 3):
            raise InvalidValueError(f"{name} is one number, or three (red, green, blue): got {len(numbers)}.")
    if "scale" not in parts:
        _require_said(mean, std)
    (scale,) = _some(_numbers(parts, "scale", [1.0]), "scale", 1)
    if scale <= 0.0 or min(std) <= 0.0:
        raise InvalidValueError("scale and std are greater than 0.")
    return {"mean": _plain([each / scale for each in mean]), "std": _plain([each / scale for each in std])}


def _require_said(mean: Sequence[float], std: Sequence[float]) -> None:
    """Refuse what is written for values in [0, 1] and would be taken for 0..255: maps of that look right."""
    if max(map(abs, [*mean, *std])) <= 1.0:
        raise InvalidValueError(
            "mean and std up to 1 are usually of values in [0, 1]: add scale=1/255, or scale=1 if they are of 0..255."
        )


def _place(parts: Parts) -> dict[str, Any]:
    """The other fields of a `Preprocessing` that the parts are about."""
    found: dict[str, Any] = {}
    if "size" in parts:
        found["size"] = _size(parts["size"])
    if "crop" in parts and "resize" in parts:
        raise InvalidValueError("crop and resize say the same: expected one of them.")
    if "crop" in parts:
        found["crop_fraction"] = None if parts["crop"] == ["none"] else _some(_numbers(parts, "crop"), "crop", 1)[0]
    if "resize" in parts:
        found["crop_fraction"] = _cropped(_some(_numbers(parts, "resize"), "resize", 1)[0], found.get("size"))
    for name in ("interpolation", "channels", "colours"):
        if name in parts:
            found[name] = ",".join(parts[name])
    Preprocessing(**found)  # whose errors name the field
    return found


def _cropped(resize: float, size: tuple[int, int] | None) -> float:
    """The fraction that is kept of a photograph whose shorter side is scaled to `resize` before the middle is cut."""
    if size is None or size[0] != size[1]:
        raise InvalidValueError("resize is the shorter side before a square is cut out of it: expected size=N as well.")
    if resize < size[0]:
        raise InvalidValueError(f"resize is at least size: got {resize:g} and {size[0]}.")
    return size[0] / resize


def _size(words: Sequence[str]) -> tuple[int, int]:
    sides = "x".join(words).split("x")
    if len(sides) > 2 or not all(side.strip().isdecimal() for side in sides):
        raise InvalidValueError(
            f"size is a number of pixels, or a height and a width as in 224x320: got {','.join(words)}."
        )
    return int(sides[0]), int(sides[-1])


def _numbers(parts: Parts, name: str, default: list[float] | None = None) -> list[float]:
    if name not in parts and default is not None:
        return default
    return [_number(word, name) for word in parts[name]]


def _number(word: str, name: str) -> float:
    """Also of a fraction, as in 1/255."""
    above, slash, below = word.partition("/")
    try:
        number = float(above) / float(below) if slash else float(above)
    except (ValueError, ZeroDivisionError):
        number = math.nan
    if not math.isfinite(number):
        raise InvalidValueError(f"{name} is a number such as 0.5 or 1/255: got {word!r}.")
    return number


def _some(numbers: list[float], name: str, count: int) -> list[float]:
    if len(numbers) != count:
        raise InvalidValueError(f"{name} is one number: got {len(numbers)}.")
    return numbers


def _plain(numbers: list[float]) -> float | tuple[float, ...]:
    return numbers[0] if len(numbers) == 1 else tuple(numbers)

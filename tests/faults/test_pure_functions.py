"""The public pure functions on arrays of every shape, layout, dtype and magnitude.

Numbers that come out are finite and in range, of the dtype that came; the arrays stay as they were; an image's result
does not depend on the others; and what is not finite is refused. A warning of NumPy's, such as of an overflow on the
way, fails a check too.
"""

from __future__ import annotations

import dataclasses
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from pure_functions import FUNCTIONS, Arrays, Function, Shape

import fusioncam_core as core
from fusioncam_core.arrays.namespaces import to_numpy
from libraries import EVERYTHING, framework

torch = framework("torch")

CHECKS = settings(
    max_examples=400 if EVERYTHING else 8,
    deadline=None,
    database=None,
    derandomize=not EVERYTHING,
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.function_scoped_fixture],
)
REFUSALS = settings(CHECKS, max_examples=200 if EVERYTHING else 4)

LAYOUTS = ("plain", "transposed", "reversed", "every other", "read-only")
MAGNITUDES = ("usual", "not negative", "huge", "tiny", "subnormal", "of all kinds", "offset", "constant", "zeros")
DTYPES = ("float16", "float32", "float64", "torch.float16", "torch.bfloat16", "torch.float32")

length = st.integers(1, 6)


@st.composite
def shapes(draw: Any) -> Shape:
    space = tuple(draw(st.lists(length, min_size=1, max_size=3)))
    size = draw(st.none() | st.tuples(*[st.integers(1, 9)] * len(space)))
    targets = draw(st.none() | st.integers(1, 2))
    return Shape(draw(st.integers(1, 3)), draw(length), targets, space, size, draw(st.sampled_from([1, -1])))


cases = st.tuples(
    shapes(), st.sampled_from(DTYPES), st.sampled_from(MAGNITUDES), st.sampled_from(LAYOUTS), st.integers(0, 2**32 - 1)
)


def values(shape: tuple[int, ...], dtype: np.dtype, magnitude: str, generator: np.random.Generator) -> np.ndarray:
    """Numbers of a magnitude, as far as the dtype goes."""
    limits = np.finfo(dtype)
    even = generator.uniform(-1, 1, shape)
    if magnitude == "of all kinds":
        exponents = generator.uniform(np.log2(float(limits.smallest_subnormal)), np.log2(float(limits.max)), shape)
        return (np.sign(even) * 2.0**exponents).astype(dtype)
    scale = {
        "huge": float(limits.max),
        "tiny": 4 * float(limits.smallest_normal),
        "subnormal": 40 * float(limits.smallest_subnormal),
    }
    made = {
        "not negative": lambda: np.maximum(generator.normal(size=shape), 0),
        "usual": lambda: generator.normal(size=shape),
        "offset": lambda: 1000 + even,
        "constant": lambda: np.full(shape, generator.normal()),
        "zeros": lambda: np.zeros(shape),
    }
    return (made[magnitude]() if magnitude in made else even * scale[magnitude]).astype(dtype)


def laid_out(array: np.ndarray, layout: str) -> np.ndarray:
    """The same values, otherwise in memory."""
    if layout == "transposed":
        return np.array(array.T, order="C").T
    if layout == "reversed":
        return np.array(array[..., ::-1])[..., ::-1]
    if layout == "every other":
        return np.repeat(array, 2, axis=-1)[..., ::2]
    array = np.array(array)
    array.flags.writeable = layout != "read-only"
    return array


def as_given(array: np.ndarray, dtype: str, layout: str) -> Any:
    """The array in the library and layout of a case; PyTorch has no negative strides and no read-only tensors."""
    if not dtype.startswith("torch"):
        return laid_out(array, layout)
    tensor = torch.from_numpy(np.array(array)).to(getattr(torch, dtype.removeprefix("torch.")))
    return tensor.mT.contiguous().mT if layout == "transposed" and tensor.ndim > 1 else tensor


def make_arrays(function: Function, case: tuple[Any, ...]) -> Arrays:
    shape, dtype, magnitude, layout, seed = case
    generator = np.random.default_rng(seed)
    kind = np.dtype({"torch.bfloat16": "float32"}.get(dtype, dtype.removeprefix("torch.")))
    lengths = function.shapes(shape)
    made = {name: values(each, kind, magnitude, generator) for name, each in lengths.items()}
    if dtype == "torch.bfloat16":
        # Its largest number is a little below that of float32, which would become infinity.
        largest = float(torch.finfo(torch.bfloat16).max)
        made = {name: np.clip(each, -largest, largest) for name, each in made.items()}
    if function.unit:
        made = {name: core.normalise(each, spatial_ndim=shape.ndim) for name, each in made.items()}
    return {name: as_given(each, dtype, layout) for name, each in made.items()}


def seen(array: Any) -> np.ndarray:
    """The bits of an array, as they are now."""
    return np.array(to_numpy(array))


def check_result(result: Any, rows: np.ndarray, function: Function, like: Any, shape: Shape) -> None:
    assert type(result) is type(like)
    assert result.dtype == like.dtype
    found = to_numpy(result).astype(np.float64)
    assert found.shape[0] == shape.batch
    assert np.isfinite(found).all()
    if function.bounds is None:
        return
    flat = found.reshape(shape.batch, -1)
    of_rows = rows.astype(np.float64).reshape(shape.batch, -1)
    own = of_rows.min(axis=1, keepdims=True), of_rows.max(axis=1, keepdims=True)
    low, high = own if function.bounds == "own" else function.bounds
    assert (flat >= low).all()
    assert (flat <= high).all()


def tolerance(dtype: str, magnitude: str) -> float:
    """Of what chunks of another size round otherwise: an offset of 1000 costs three digits of the map above it."""
    digits = {"torch.bfloat16": 2e-2, "float16": 3e-3, "torch.float16": 3e-3, "float64": 1e-9}.get(dtype, 1e-5)
    return max(digits, 1e-2) if magnitude == "offset" else digits


WELL_CONDITIONED = ("usual", "not negative", "huge", "constant", "zeros")
"""Of which a formula in another precision says the same."""


def check_value(result: Any, before: dict[str, np.ndarray], function: Function, case: tuple[Any, ...]) -> None:
    """The result is that of the formula in NumPy's longdouble."""
    shape, dtype, magnitude, *_ = case
    if function.expected is None or magnitude not in WELL_CONDITIONED:
        return
    expected = function.expected({key: each.astype(np.longdouble) for key, each in before.items()}, shape)
    if expected is not None:
        allowed = 10 * tolerance(dtype, magnitude)
        np.testing.assert_allclose(to_numpy(result).astype(np.longdouble), expected, rtol=allowed, atol=allowed)


@pytest.mark.parametrize("name", FUNCTIONS)
@CHECKS
@given(case=cases)
def test_whatever_the_numbers(name: str, case: tuple[Any, ...]) -> None:
    function, shape = FUNCTIONS[name], case[0]
    arrays = make_arrays(function, case)
    before = {key: seen(each) for key, each in arrays.items()}
    results = function.call(dict(arrays), shape)
    first = next(iter(arrays.values()))
    for result in results:
        check_result(result, before[next(iter(arrays))], function, first, shape)
    check_value(results[0], before, function, case)
    for key, each in arrays.items():
        assert seen(each).tobytes() == before[key].tobytes(), f"{key} was changed"
    row = case[-1] % shape.batch
    alone = function.call(
        {key: each[row : row + 1] for key, each in arrays.items()}, dataclasses.replace(shape, batch=1)
    )
    for result, own in zip(results, alone, strict=True):
        expected, actual = to_numpy(result)[row : row + 1], to_numpy(own)
        allowed = tolerance(*case[1:3])
        np.testing.assert_allclose(actual, expected, rtol=allowed, atol=allowed)


@pytest.mark.parametrize("name", [name for name, function in FUNCTIONS.items() if function.looks_at])
@REFUSALS
@given(case=cases, wrong=st.sampled_from([np.nan, np.inf, -np.inf]), place=st.integers(0, 2**32 - 1))
def test_what_is_not_finite_is_refused(name: str, case: tuple[Any, ...], wrong: float, place: int) -> None:
    function = FUNCTIONS[name]
    wrong = np.nan if wrong in function.holds else wrong
    shape, dtype, _, layout, seed = case
    arrays = make_arrays(function, (shape, dtype, "usual", "plain", seed))
    key = function.looks_at[place % len(function.looks_at)]
    spoiled = np.array(to_numpy(arrays[key]))
    spoiled.flat[place % spoiled.size] = wrong
    arrays[key] = as_given(spoiled, dtype, layout)
    with pytest.raises(core.InvalidValueError, match="NaN or infinity"):
        function.call(arrays, shape)


def test_softmax_of_classes_that_are_ruled_out() -> None:
    np.testing.assert_array_equal(core.softmax(np.array([-np.inf, 0.0])), [0, 1])
    with pytest.raises(core.InvalidValueError, match="NaN or infinity in the largest values"):
        core.softmax(np.array([-np.inf, -np.inf]))


def test_rise_refuses_what_a_scorer_makes_up() -> None:
    with pytest.raises(core.InvalidValueError, match="NaN or infinity in the scores"):
        core.rise(np.zeros((1, 1, 4, 4), np.float32), lambda masks, images: masks[:, 0, 0] * np.nan, masks=4)

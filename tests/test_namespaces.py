"""The words of a namespace: each is asked for by name, and its values are compared with NumPy's."""

from __future__ import annotations

import ast
from collections.abc import Callable, Iterator
from operator import attrgetter
from pathlib import Path
from typing import Any, NamedTuple

import array_api_compat
import numpy as np
import pytest

import fusioncam_core
from fusioncam_core.arrays.namespaces import (
    OPTIONAL_WORDS,
    WORDS,
    array_namespace,
    constant_like,
    indices_like,
    is_traced,
    rows_apart,
    to_numpy,
)
from libraries import LIBRARIES, Library

CORE = Path(fusioncam_core.__file__).parent

EAGER = [name for name in LIBRARIES if "-" not in name]
COMPILED = [name for name in LIBRARIES if "-" in name]

FLOATS = np.array([[[-2.0, 0.5, 1.5], [4.0, -0.25, 3.0]], [[1.0, 2.0, -3.0], [0.5, 8.0, -1.0]]], dtype=np.float32)
OTHERS = np.array([[[1.0, 0.25, -1.5], [4.0, 2.0, 0.5]], [[-1.0, 3.0, 2.0], [0.25, -8.0, 1.0]]], dtype=np.float32)
ROW = np.array([0.75, -1.0, 2.0], dtype=np.float32)
HALVES = np.array([-1.5, -0.5, 0.5, 1.5, 2.5, 0.75], dtype=np.float32)
SPECIAL = np.array([1.0, np.nan, np.inf, -np.inf], dtype=np.float32)
TIES = np.array([[2.0, 1.0, 2.0, 0.0], [5.0, 5.0, -5.0, 5.0]], dtype=np.float32)
TALL = np.array([[[1.0, 2.0], [3.0, 4.0], [5.0, 7.0]], [[0.0, 1.0], [0.0, 0.0], [2.0, 0.0]]], dtype=np.float32)
MASK = FLOATS > 0.75
INTEGERS = np.array([[3, -1, 2], [0, 7, -4]])
ROWS = np.array([1, 0, 1])
PLACES = np.array([[3, 0], [2, 1]])
COLUMNS = np.array([[[2], [0]], [[1], [1]]])


class Example(NamedTuple):
    """One word called as the core calls it.

    Attributes:
        word: its name.
        arrays: NumPy arrays, handed over as arrays of the library.
        call: gets the word and those arrays.
        expected: what NumPy, or a hand, makes of the same.
    """

    word: str
    arrays: tuple[np.ndarray, ...]
    call: Callable[..., Any]
    expected: Any


def _reductions(word: str, values: np.ndarray, numpy: Callable[..., Any]) -> list[Example]:
    """Over all axes, over one, and over two that stay."""
    return [
        Example(word, (values,), lambda f, a: f(a), numpy(values)),
        Example(word, (values,), lambda f, a: f(a, axis=1), numpy(values, axis=1)),
        Example(word, (values,), lambda f, a: f(a, axis=(-2, -1), keepdims=True), numpy(values, (1, 2), keepdims=True)),
    ]


def _elementwise(word: str, *arrays: np.ndarray, numpy: Callable[..., Any]) -> Example:
    return Example(word, arrays, lambda f, *a: f(*a), numpy(*arrays))


def _product_of_factors(f: Callable[..., Any], matrices: Any) -> Any:
    """The matrices again: their singular vectors are determined but for the sign."""
    left, values, right = f(matrices, full_matrices=False)
    xp = array_namespace(matrices)
    return xp.matmul(left * xp.expand_dims(values, axis=-2), right)


EXAMPLES = [
    Example("float32", (INTEGERS,), lambda f, a: array_namespace(a).astype(a, f), INTEGERS.astype(np.float32)),
    Example("isdtype", (FLOATS,), lambda f, a: f(a.dtype, "real floating"), True),
    Example("isdtype", (INTEGERS,), lambda f, a: f(a.dtype, "real floating"), False),
    Example("isdtype", (INTEGERS,), lambda f, a: f(a.dtype, ("integral", "real floating")), True),
    Example("isdtype", (MASK,), lambda f, a: f(a.dtype, ("integral", "real floating")), False),
    Example("isdtype", (MASK,), lambda f, a: f(a.dtype, "bool"), True),
    Example("finfo", (FLOATS,), lambda f, a: int(f(a.dtype).bits), 32),
    Example("finfo", (FLOATS,), lambda f, a: float(f(a.dtype).eps), 2.0**-23),
    Example("finfo", (FLOATS,), lambda f, a: float(f(a.dtype).smallest_normal), 2.0**-126),
    Example("finfo", (FLOATS,), lambda f, a: float(f(a.dtype).max), 2.0**128 - 2.0**104),
    Example("astype", (MASK, FLOATS), lambda f, a, like: f(a, like.dtype), MASK.astype(np.float32)),
    Example("astype", (INTEGERS, FLOATS), lambda f, a, like: f(a, like.dtype), INTEGERS.astype(np.float32)),
    Example("asarray", (FLOATS,), lambda f, a: f(FLOATS), FLOATS),
    Example("asarray", (FLOATS,), lambda f, a: f(a), FLOATS),
    Example("asarray", (FLOATS,), lambda f, a: f(np.asarray(INTEGERS), dtype=a.dtype), INTEGERS.astype(np.float32)),
    _elementwise("zeros_like", FLOATS, numpy=np.zeros_like),
    _elementwise("zeros_like", INTEGERS, numpy=np.zeros_like),
    _elementwise("ones_like", FLOATS, numpy=np.ones_like),
    Example("full_like", (FLOATS,), lambda f, a: f(a, float("nan")), np.full_like(FLOATS, np.nan)),
    Example("full_like", (INTEGERS,), lambda f, a: f(a, 5), np.full_like(INTEGERS, 5)),
    _elementwise("abs", FLOATS, numpy=np.abs),
    _elementwise("exp", FLOATS, numpy=np.exp),
    _elementwise("log", np.abs(FLOATS), numpy=np.log),
    _elementwise("sqrt", np.abs(FLOATS), numpy=np.sqrt),
    Example("round", (HALVES,), lambda f, a: f(a), np.array([-2, 0, 0, 2, 2, 1], dtype=np.float32)),
    Example("isfinite", (SPECIAL,), lambda f, a: f(a), np.array([True, False, False, False])),
    Example("isnan", (SPECIAL,), lambda f, a: f(a), np.array([False, True, False, False])),
    _elementwise("logical_not", MASK, numpy=np.logical_not),
    _elementwise("maximum", FLOATS, OTHERS, numpy=np.maximum),
    _elementwise("maximum", FLOATS, ROW, numpy=np.maximum),
    _elementwise("minimum", FLOATS, OTHERS, numpy=np.minimum),
    _elementwise("minimum", INTEGERS, -INTEGERS, numpy=np.minimum),
    _elementwise("where", MASK, FLOATS, OTHERS, numpy=np.where),
    _elementwise("where", MASK[:, :1], FLOATS, ROW, numpy=np.where),
    *_reductions("sum", FLOATS, np.sum),
    *_reductions("prod", FLOATS, np.prod),
    *_reductions("mean", FLOATS, np.mean),
    *_reductions("max", FLOATS, np.max),
    *_reductions("min", FLOATS, np.min),
    *_reductions("all", MASK, np.all),
    *_reductions("any", MASK, np.any),
    Example("argmax", (TIES,), lambda f, a: f(a, axis=1), np.array([0, 0])),
    Example("argmax", (FLOATS,), lambda f, a: f(a, axis=1, keepdims=True), np.argmax(FLOATS, 1, keepdims=True)),
    Example("sort", (FLOATS,), lambda f, a: f(a, axis=-1), np.sort(FLOATS, axis=-1)),
    Example("sort", (FLOATS,), lambda f, a: f(a, axis=0), np.sort(FLOATS, axis=0)),
    Example("argsort", (TIES,), lambda f, a: f(a, axis=-1, stable=True), np.array([[3, 1, 0, 2], [2, 0, 1, 3]])),
    Example("argsort", (TIES,), lambda f, a: f(a, axis=1, descending=True), np.array([[0, 2, 1, 3], [0, 1, 3, 2]])),
    Example("argsort", (INTEGERS,), lambda f, a: f(a, axis=1, stable=True), np.array([[1, 2, 0], [2, 0, 1]])),
    Example("take", (FLOATS, ROWS), lambda f, a, i: f(a, i, axis=0), FLOATS[ROWS]),
    Example("take", (FLOATS, ROWS), lambda f, a, i: f(a, i, axis=1), FLOATS[:, ROWS]),
    Example("take", (MASK, ROWS), lambda f, a, i: f(a, i, axis=-1), MASK[..., ROWS]),
    Example(
        "take_along_axis", (TIES, PLACES), lambda f, a, i: f(a, i, axis=1), np.array([[0, 2], [-5, 5]], np.float32)
    ),
    Example(
        "take_along_axis", (MASK, COLUMNS), lambda f, a, i: f(a, i, axis=-1), np.take_along_axis(MASK, COLUMNS, -1)
    ),
    Example("reshape", (FLOATS,), lambda f, a: f(a, (2, -1)), FLOATS.reshape(2, 6)),
    Example("reshape", (FLOATS,), lambda f, a: f(a, (3, 2, 2, 1)), FLOATS.reshape(3, 2, 2, 1)),
    Example("broadcast_to", (ROW,), lambda f, a: f(a, (2, 3)), np.array([ROW, ROW])),
    Example("broadcast_to", (MASK[:, :1],), lambda f, a: f(a, (2, 4, 3)), MASK[:, [0] * 4]),
    Example("expand_dims", (FLOATS,), lambda f, a: f(a, axis=1), FLOATS[:, None]),
    Example("expand_dims", (FLOATS,), lambda f, a: f(a, axis=-1), FLOATS[..., None]),
    Example("moveaxis", (FLOATS,), lambda f, a: f(a, -1, 1), FLOATS.transpose(0, 2, 1)),
    Example("moveaxis", (FLOATS,), lambda f, a: f(a, 0, -1), FLOATS.transpose(1, 2, 0)),
    Example("concat", (FLOATS, OTHERS), lambda f, *a: f(a, axis=1), np.concatenate([FLOATS, OTHERS], axis=1)),
    Example("concat", (TIES, TIES[:1]), lambda f, *a: f(list(a), axis=0), TIES[[0, 1, 0]]),
    Example("stack", (ROW, -ROW), lambda f, *a: f(list(a)), np.array([ROW, -ROW])),
    Example("stack", (ROW, -ROW), lambda f, *a: f(list(a), axis=1), np.array([ROW, -ROW]).T),
    _elementwise("matmul", TALL, FLOATS, numpy=np.matmul),
    _elementwise("matmul", TALL[:, None], FLOATS[0], numpy=np.matmul),
    Example("matrix_transpose", (TALL,), lambda f, a: f(a), TALL.transpose(0, 2, 1)),
    Example("linalg.svd", (TALL,), lambda f, a: f(a, full_matrices=False)[1], np.linalg.svd(TALL)[1]),
    Example("linalg.svd", (TALL,), _product_of_factors, TALL),
    Example("linalg.svd", (FLOATS,), _product_of_factors, FLOATS),
]


def numbered(examples: list[Example]) -> list[str]:
    """The words, numbered where one has several examples."""
    words = [example.word for example in examples]
    return [f"{word}-{words[:place].count(word)}" for place, word in enumerate(words)]


def run(example: Example, arrays: list[Any]) -> Any:
    """The example's result, of the arrays of a library."""
    return example.call(attrgetter(example.word)(array_namespace(*arrays)), *arrays)


def assert_values(actual: Any, expected: Any, message: str = "") -> None:
    """`actual` has the kind of dtype, the shape and the values of what NumPy makes."""
    values, expected = to_numpy(actual), np.asarray(expected)
    assert values.dtype.kind == expected.dtype.kind, f"{message}: {values.dtype} came, {expected.dtype} was expected"
    assert values.shape == expected.shape, f"{message}: shape {values.shape} came, {expected.shape} was expected"
    np.testing.assert_allclose(values, expected, rtol=2e-6, atol=2e-6 * (values.dtype.kind == "f"), err_msg=message)


def test_each_word_has_an_example() -> None:
    assert {example.word for example in EXAMPLES} == WORDS


@pytest.mark.parametrize("library", EAGER, indirect=True)
@pytest.mark.parametrize("example", EXAMPLES, ids=numbered(EXAMPLES))
def test_a_word_gives_the_values_of_numpy(library: Library, example: Example) -> None:
    arrays = [library.asarray(array) for array in example.arrays]
    actual = run(example, arrays)
    assert_values(actual, example.expected)
    if isinstance(example.expected, np.ndarray):
        assert type(actual) is type(arrays[0])
        assert example.expected.dtype != np.float32 or actual.dtype == library.asarray(ROW).dtype


@pytest.mark.parametrize("library", COMPILED, indirect=True)
def test_every_word_compiled(library: Library) -> None:
    """All examples in one function: a compilation for each would take longer than everything else here."""
    arrays = [[library.asarray(array) for array in example.arrays] for example in EXAMPLES]
    compiled = library.compile(lambda given: [run(*each) for each in zip(EXAMPLES, given, strict=True)])
    for name, example, actual in zip(numbered(EXAMPLES), EXAMPLES, compiled(arrays), strict=True):
        assert_values(actual, example.expected, name)


class TestOptionalWords:
    """Whether a namespace has them or the core does without, the same comes out."""

    def test_constants_and_indices(self, library: Library) -> None:
        like = library.asarray(ROW)
        constant = library.compile(lambda a: constant_like(np.arange(3.0), a, array_namespace(a)))(like)
        assert constant.dtype == like.dtype
        assert_values(constant, [0.0, 1.0, 2.0])
        assert_values(library.compile(lambda a: indices_like([4, 0], a, array_namespace(a)))(like), [4, 0])

    def test_is_traced(self, library: Library) -> None:
        seen = []
        library.compile(lambda a: seen.append(is_traced(a, array_namespace(a))) or a + 1)(library.asarray(ROW))
        assert seen == [library.compiled]

    @pytest.mark.parametrize("library", EAGER, indirect=True)
    def test_values_on_the_host(self, library: Library) -> None:
        xp, arrays = array_namespace(library.asarray(ROW)), [library.asarray(ROW), library.asarray(-ROW)]
        if hasattr(xp, "kept"):
            assert_values(xp.kept(arrays[0]), ROW)
        if hasattr(xp, "to_host"):
            for actual, expected in zip(xp.to_host(arrays), [ROW, -ROW], strict=True):
                assert type(actual) is np.ndarray
                assert_values(actual, expected)

    @pytest.mark.parametrize("library", EAGER, indirect=True)
    def test_rows_apart(self, library: Library) -> None:
        values = [np.arange(12.0, dtype=np.float32).reshape(3, 2, 2), np.arange(3)]
        arrays = [library.asarray(each) for each in values]
        rows = list(rows_apart(arrays))
        assert len(rows) == 3
        for number, row in enumerate(rows):
            for part, array, own in zip(row, arrays, values, strict=True):
                assert part.dtype == array.dtype
                assert_values(part, own[number : number + 1])

    @pytest.mark.parametrize("library", EAGER, indirect=True)
    def test_rows_of_two_libraries(self, library: Library) -> None:
        rows = list(rows_apart([library.asarray(ROW), ROW]))
        assert len(rows) == len(ROW)
        for (own, other), expected in zip(rows, ROW, strict=True):
            assert array_namespace(own) is array_namespace(library.asarray(ROW))
            assert_values(own, expected[None])
            assert_values(other, expected[None])


def used_words(module: ast.Module) -> Iterator[str]:
    """The words that a module asks a namespace for: "sort" of `xp.sort(...)`, "linalg.svd", "kept" of a `getattr`."""
    for node in ast.walk(module):
        if isinstance(node, ast.Attribute):
            yield from _word(node)
        if isinstance(node, ast.Call) and ast.unparse(node.func) in ("getattr", "hasattr"):
            asked, name = node.args[:2]
            yield from _read(name, module) if _is_namespace(asked) else ()


def _read(name: ast.expr, module: ast.Module) -> list[str]:
    """A name that stands there, or all of a table of the module's that it is looked up in."""
    if isinstance(name, ast.Constant):
        return [name.value]
    assert isinstance(name, ast.Subscript), f"{ast.unparse(name)}: which words of a namespace that are cannot be read"
    tables = [node for node in module.body if isinstance(node, ast.Assign | ast.AnnAssign)]
    (table,) = [each for each in tables if ast.unparse(name.value) in ast.unparse(each).partition(" =")[0]]
    return list(ast.literal_eval(table.value).values())


def _word(node: ast.Attribute) -> Iterator[str]:
    if _is_namespace(node.value) and node.attr != "linalg":
        yield node.attr
    if isinstance(node.value, ast.Attribute) and node.value.attr == "linalg" and _is_namespace(node.value.value):
        yield f"linalg.{node.attr}"


def _is_namespace(node: ast.expr) -> bool:
    """`xp`, `batch.xp`, `self.adapter.namespace`, or `array_namespace(...)`."""
    if isinstance(node, ast.Call):
        return ast.unparse(node.func) == "array_namespace"
    return ast.unparse(node).rpartition(".")[2] in ("xp", "namespace")


class TestWordsOfTheCore:
    USED = frozenset(word for path in CORE.rglob("*.py") for word in used_words(ast.parse(path.read_text())))

    def test_the_search_finds_them(self) -> None:
        source = (
            "TABLE = {'first': 'g', 'second': 'h'}\n"
            "xp.a(xp.b); self.xp.c; x.namespace.d; array_namespace(y).e; xp.linalg.f(np.none)\n"
            "getattr(xp, TABLE[each]); getattr(batch.xp, 'i', None); getattr(np, 'none')"
        )
        assert sorted(used_words(ast.parse(source))) == ["a", "b", "c", "d", "e", "g", "h", "i", "linalg.f"]

    def test_each_is_in_the_protocol(self) -> None:
        assert self.USED <= WORDS | OPTIONAL_WORDS

    def test_the_protocol_asks_for_nothing_else(self) -> None:
        assert self.USED >= WORDS | OPTIONAL_WORDS


def test_numpy_is_the_namespace_of_its_arrays() -> None:
    assert array_namespace(ROW) is array_api_compat.array_namespace(ROW)

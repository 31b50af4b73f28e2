"""An explanation as a thing: its images by their places, its files, and what comes back from them."""

from __future__ import annotations

import copy
import io
import json
import math
import os
import pickle
import zipfile
from collections.abc import Callable
from dataclasses import fields, replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from fusioncam_core import Explanation, FusionCamError, InvalidIndexError, Provenance
from fusioncam_core.arrays.namespaces import array_namespace
from fusioncam_core.results.explanation import join
from libraries import Library

GENERATOR = np.random.default_rng(0)

PROVENANCE = Provenance(
    version="0.1.0",
    method="rise",
    options={"masks": 40, "baseline": [0.1, None], "seed": 3, "backend_options": {"channels": "last"}},
    layers=("features.3#1",),
    model="Net",
    weights_digest="sha256:0",
    frameworks={"torch": "2.9"},
    device="cpu",
    preprocessing={"size": [4, 6]},
)


def drawn(*shape: int) -> np.ndarray[Any, Any]:
    return GENERATOR.random(shape, dtype=np.float32)


def explanation(count: int = 3, targets: tuple[int, ...] = (2,), spatial: tuple[int, ...] = (4, 6)) -> Explanation:
    """With every field, and no two values alike."""
    own = (count, *targets)
    return Explanation(
        method="rise",
        layer="features.3#1",
        model="Net",
        maps=drawn(*own, *spatial),
        targets=GENERATOR.integers(0, 9, own),
        scores=drawn(*own).astype(np.float64),
        probabilities=drawn(*own),
        class_probabilities=drawn(count, 9),
        images=drawn(count, 3, *spatial),
        image_channel_axis=1,
        evaluations=10,
        parts={"union": drawn(*own, *spatial), "a/b.npy": drawn(*own, *spatial), "a/b": drawn(*own, *spatial)},
        weights={"weight_union": drawn(*own), "file": drawn(*own)},
        titles={"maps": "RISE", "union": "Union"},
        masks_run=GENERATOR.integers(0, 9, count),
        uncertainty=drawn(*own),
        names=(*(f"cat/{number}" for number in range(count - 1)), os.fsdecode(b"\xff")),
        indices=tuple(range(7, 7 + count)),
        files=tuple(f"/photos/cat/{number}.png" for number in range(count)),
        provenance=PROVENANCE,
        target_names=tuple((f"f{number}",) * math.prod(targets) for number in range(count)),
        raw_range=drawn(*own, 2),
        form="signed",
    )


def assert_bit_for_bit(first: Explanation, second: Explanation) -> None:
    assert first == second
    for each in fields(Explanation):
        before, after = getattr(first, each.name), getattr(second, each.name)
        pairs = [(before[name], after[name]) for name in before] if each.name in ("parts", "weights") else []
        pairs += [(before, after)] if isinstance(before, np.ndarray) else []
        for one, other in pairs:
            assert (one.dtype, one.shape, one.tobytes()) == (other.dtype, other.shape, other.tobytes()), each.name
        if not pairs:
            assert type(before) is type(after), each.name


class TestOneByOne:
    def test_the_same_as_by_their_places(self, eager: Library) -> None:
        whole = in_library(explanation(), eager)
        for place, single in enumerate(whole):
            assert_bit_for_bit(single.numpy(), whole[place].numpy())
            assert type(single.maps) is type(whole.maps)

    def test_of_none_there_is_none(self, eager: Library) -> None:
        assert list(in_library(explanation(), eager)[0:0]) == []


def in_library(whole: Explanation, library: Library) -> Explanation:
    """The explanation with arrays of a library."""
    arrays = {
        field.name: value for field in fields(whole) if isinstance(value := getattr(whole, field.name), np.ndarray)
    }
    dicts = {name: getattr(whole, name) for name in ("parts", "weights")}
    return replace(
        whole,
        **{name: library.asarray(value) for name, value in arrays.items()},
        **{name: {key: library.asarray(value) for key, value in each.items()} for name, each in dicts.items()},
    )


class TestImages:
    def test_each_of_them(self) -> None:
        given = explanation()
        assert len(given) == 3
        singles = list(given)
        assert [each.maps.shape for each in singles] == [(1, 2, 4, 6)] * 3
        assert [each.indices for each in singles] == [(7,), (8,), (9,)]
        assert [each.names for each in singles] == [("cat/0",), ("cat/1",), (os.fsdecode(b"\xff"),)]
        assert [each.evaluations for each in singles] == [4, 3, 3]
        assert singles[1].parts["union"].tolist() == given.parts["union"][1:2].tolist()
        assert singles[1].weights["file"].tolist() == given.weights["file"][1:2].tolist()
        assert join(singles, array_namespace(given.maps)) == given

    @pytest.mark.parametrize(
        ("place", "rows"),
        [
            (0, [0]),
            (-1, [2]),
            (np.int64(1), [1]),
            (slice(1, None), [1, 2]),
            (slice(None, None, 2), [0, 2]),
            (slice(None, None, -1), [2, 1, 0]),
            (slice(-1, 0, -2), [2]),
            (slice(2, 1), []),
            (slice(9, 12), []),
        ],
    )
    def test_some_of_them(self, place: Any, rows: list[int]) -> None:
        given = explanation()
        found = given[place]
        assert len(found) == len(rows)
        assert found.images.tolist() == given.images[rows].tolist()
        assert found.uncertainty.tolist() == given.uncertainty[rows].tolist()
        assert found.files == tuple(given.files[row] for row in rows)
        assert found.evaluations == sum((4, 3, 3)[row] for row in rows)
        assert found.provenance == given.provenance

    def test_one_of_one_is_the_same(self) -> None:
        given = explanation(1, ())
        assert given[0] == given[-1] == given[:] == given

    @pytest.mark.parametrize("place", [3, -4, 10**30])
    def test_there_is_no_such_image(self, place: int) -> None:
        with pytest.raises(InvalidIndexError, match=rf"Expected a place from -3 to 2 among 3 images, got {place}\."):
            explanation()[place]
        assert issubclass(InvalidIndexError, IndexError)
        assert issubclass(InvalidIndexError, FusionCamError)

    @pytest.mark.parametrize("place", [True, "maps", 1.0, None, [0, 1], (0, 1), np.arange(2), np.True_], ids=repr)
    def test_what_is_no_place(self, place: Any) -> None:
        with pytest.raises(TypeError, match="Expected the place of an image, or a slice such as"):
            explanation()[place]

    def test_provenance_tells_explanations_apart(self) -> None:
        given = explanation()
        assert given == replace(given, provenance=replace(PROVENANCE, options=dict(PROVENANCE.options)))
        assert given != replace(given, provenance=replace(PROVENANCE, options={**PROVENANCE.options, "seed": 4}))
        assert given != replace(given, provenance=None)

    def test_copies_and_pickles(self) -> None:
        given = explanation()
        for other in (copy.copy(given), copy.deepcopy(given), pickle.loads(pickle.dumps(given))):
            assert_bit_for_bit(given, other)


class TestFiles:
    @pytest.mark.parametrize("spatial", [(6,), (4, 6), (2, 3, 4)], ids=len)
    @pytest.mark.parametrize("targets", [(), (1,), (2,)])
    def test_everything_comes_back(self, tmp_path: Path, targets: tuple[int, ...], spatial: tuple[int, ...]) -> None:
        given = explanation(3, targets, spatial)
        assert all(
            getattr(given, each.name) not in ((), {}, None)
            for each in fields(given)
            if each.name != "maps" and not isinstance(getattr(given, each.name), np.ndarray)
        ), "each field has a value to lose"
        written = [path for path in given.save(tmp_path, pictures=False) if path.suffix == ".npz"]
        assert written[0] == tmp_path / "cat" / "0.npz"
        for single, path in zip(given, written, strict=True):
            assert_bit_for_bit(Explanation.load(path), single)
        assert_bit_for_bit(Explanation.load(written), given)
        assert Explanation.load([str(path.with_suffix("")) for path in written[::-1]]) == replace(
            given[::-1], evaluations=10
        )

    @pytest.mark.parametrize("dtype", ["f2", "f8", ">f4", "u1", "i8", "c8", "?"])
    def test_inputs_of_any_dtype(self, tmp_path: Path, dtype: str) -> None:
        given = replace(explanation(1), images=np.asfortranarray(GENERATOR.integers(0, 2, (1, 3, 4, 6)).astype(dtype)))
        given.save(tmp_path, ["a"], pictures=False)
        found = Explanation.load(tmp_path / "a")
        assert found == given
        assert found.images.dtype == given.images.dtype

    def test_what_is_no_finite_number(self, tmp_path: Path) -> None:
        special = np.array([[-0.0, np.nan, np.inf, -np.inf, 5e-324]])
        given = replace(explanation(1, (5,)), scores=special)
        given.save(tmp_path, ["a"], pictures=False)
        assert Explanation.load(tmp_path / "a").scores.tobytes() == special.tobytes()

    def test_bfloat16_comes_back_as_float32_of_the_same_values(self, tmp_path: Path) -> None:
        short = pytest.importorskip("ml_dtypes").bfloat16
        given = replace(explanation(1), images=drawn(1, 3, 4, 6).astype(short))
        given.save(tmp_path, ["a"], pictures=False)
        found = Explanation.load(tmp_path / "a")
        assert found.images.dtype == np.float32
        assert found.images.tolist() == given.images.astype(np.float32).tolist()
        assert found == given

    def test_without_what_may_be_missing(self, tmp_path: Path) -> None:
        given = replace(
            explanation(1), parts={}, weights={}, titles={}, masks_run=None, uncertainty=None, names=(), indices=(),
            files=(), provenance=None, image_channel_axis=None,
        )  # fmt: skip
        given.save(tmp_path, ["a"], pictures=False)
        assert_bit_for_bit(Explanation.load(tmp_path / "a"), given)

    def test_indices_of_numpy(self, tmp_path: Path) -> None:
        given = replace(explanation(1), indices=(np.int64(3),))
        given.save(tmp_path, ["a"], pictures=False)
        assert Explanation.load(tmp_path / "a") == given

    def test_the_same_work_gives_the_same_files(self, tmp_path: Path) -> None:
        given = explanation(1)
        first = given.save(tmp_path / "1", ["a"], pictures=False)
        second = given.save(tmp_path / "2", ["a"], pictures=False)
        values = [[np.load(path)["explanation"] for path in files[:1]] for files in (first, second)]
        assert values[0] == values[1]
        assert first[1].read_bytes() == second[1].read_bytes()

    def test_names_of_which_several_dots_are_part(self, tmp_path: Path) -> None:
        given = explanation(1)
        given.save(tmp_path, ["y.tar"], pictures=False)
        assert Explanation.load(tmp_path / "y.tar") == Explanation.load(str(tmp_path / "y.tar.npz")) == given

    @pytest.mark.parametrize("field", ["images", "parts", "weights"])
    def test_arrays_of_anything_but_numbers_are_not_saved(self, tmp_path: Path, field: str) -> None:
        wrong = np.array([[[object()]]])
        given = replace(explanation(1), **{field: wrong if field == "images" else {"x": wrong}})
        with pytest.raises(TypeError, match=r"Expected numbers in .* of an explanation, got an array of object"):
            given.save(tmp_path, ["a"], pictures=False)
        assert list(tmp_path.iterdir()) == []


class TestSeveral:
    def saved(self, folder: Path, *given: Explanation) -> list[Path]:
        return [each.save(folder, [str(number)], pictures=False)[0] for number, each in enumerate(given)]

    def test_none(self) -> None:
        with pytest.raises(ValueError, match="Expected the path of an explanation, or several, got none"):
            Explanation.load([])

    @pytest.mark.parametrize("path", [None, 3, {"a"}, b"a.npz", [3]], ids=repr)
    def test_what_is_no_path(self, path: Any) -> None:
        with pytest.raises(TypeError, match="Expected the path of an explanation, or a list of them"):
            Explanation.load(path)

    @pytest.mark.parametrize(
        ("change", "name"),
        [
            ({"method": "score-cam"}, "method"),
            ({"layer": "other"}, "layer"),
            ({"titles": {}}, "titles"),
            ({"provenance": None}, "provenance"),
            ({"names": ()}, "names"),
            ({"masks_run": None}, "masks_run"),
            ({"images": drawn(1, 1, 4, 6)}, "images"),
            ({"parts": {}}, r"parts\['a/b'\]"),
            ({"weights": {}}, r"weights\['file'\]"),
        ],
    )
    def test_those_that_do_not_belong_together(self, tmp_path: Path, change: dict[str, Any], name: str) -> None:
        given = explanation(1)
        paths = self.saved(tmp_path, given, replace(given, **change))
        with pytest.raises(ValueError, match=rf"0\.npz' and '.*1\.npz', which differ in {name}\. Load them one by one"):
            Explanation.load(paths)


def entries_of(path: Path) -> dict[str, bytes]:
    with zipfile.ZipFile(path) as file:
        return {name: file.read(name) for name in file.namelist()}


def array(values: Any) -> bytes:
    buffer = io.BytesIO()
    np.save(buffer, values)
    return buffer.getvalue()


def text(change: Callable[[dict[str, Any]], object]) -> Callable[[dict[str, bytes]], dict[str, bytes]]:
    """Of a file's entries those with other fields."""

    def changed(entries: dict[str, bytes]) -> dict[str, bytes]:
        values = json.loads(str(np.load(io.BytesIO(entries["explanation.npy"]))))
        change(values)
        return {**entries, "explanation.npy": array(json.dumps(values))}

    return changed


def field(name: str, value: Any) -> Any:
    return text(lambda values: values.update({name: value}))


def in_provenance(name: str, value: Any) -> Any:
    return text(lambda values: values["provenance"].update({name: value}))


def entry(name: str, content: bytes) -> Any:
    return lambda entries: {**entries, f"{name}.npy": content}


def without(name: str) -> Any:
    return lambda entries: {key: content for key, content in entries.items() if key != f"{name}.npy"}


def longer(content: bytes) -> bytes:
    """An array's beginning that promises 10 ** 13 numbers."""
    return content.replace(b"(2, 4, 6)", b"(10**13,)").replace(b"'shape': (10**13,)", b"'shape': (9999999999999,)")


class TestFilesOfOthers:
    """Nothing is misread: what is not an explanation in this schema is refused with a sentence, and nothing is run."""

    @pytest.fixture
    def path(self, tmp_path: Path) -> Path:
        return explanation(1).save(tmp_path, ["a"], pictures=False)[0]

    def refused(self, path: Path) -> str:
        with pytest.raises(ValueError, match="Expected an explanation in schema 2, got") as caught:
            Explanation.load(path)
        assert isinstance(caught.value, FusionCamError)
        assert str(path) in str(caught.value)
        return str(caught.value)

    @pytest.mark.parametrize(
        ("schema", "reason"),
        [
            (1, "its schema is 1, of an earlier version of fusioncam, .* numpy.load reads the arrays in it; explain"),
            (3, "its schema is 3, of a later version of fusioncam: update fusioncam to read it"),
            (2.0, "its schema is no number"),
            ([2], "its schema is no number"),
            ("2", "its schema is no number"),
        ],
    )
    def test_another_schema(self, path: Path, schema: Any, reason: str) -> None:
        rewrite(path, entry("fusioncam", array(schema)))
        with pytest.raises(ValueError, match=reason):
            Explanation.load(path)
        self.refused(path)

    def test_a_file_of_the_first_schema(self, tmp_path: Path) -> None:
        """As the version before this one has written it."""
        ones = np.ones(1, np.float32)
        np.savez(tmp_path / "a.npz", fusioncam=1, maps=np.ones((4, 6)), targets=1, scores=ones, probabilities=ones)
        assert "of an earlier version of fusioncam" in self.refused(tmp_path / "a.npz")

    def test_arrays_of_somebody_else(self, tmp_path: Path) -> None:
        np.savez(tmp_path / "a.npz", maps=np.zeros(3), targets=np.zeros(3))
        assert "it holds something else, 'maps', 'targets'" in self.refused(tmp_path / "a.npz")

    @pytest.mark.parametrize("content", [b"", b"hello", b"PK\x03\x04", b"\x93NUMPY", array(np.zeros(3))])
    def test_no_archive(self, path: Path, content: bytes) -> None:
        path.write_bytes(content)
        assert "it cannot be read (BadZipFile" in self.refused(path)

    def test_a_file_that_is_cut_off(self, path: Path) -> None:
        whole = path.read_bytes()
        for length in (len(whole) - 1, len(whole) // 2, 100):
            path.write_bytes(whole[:length])
            self.refused(path)

    def test_no_file(self, tmp_path: Path) -> None:
        for name in ("gone", "gone.npz", "gone.json", ""):
            with pytest.raises(ValueError, match=r"Expected the \.npz file of an explanation, got .* there is no file"):
                Explanation.load(tmp_path / name)

    def test_objects_are_not_unpickled(self, path: Path) -> None:
        bomb = np.array([Bomb()], dtype=object)
        for name in ("fusioncam", "explanation", "images", "parts/union"):
            before = path.read_bytes()
            rewrite(path, entry(name, array(bomb)))
            assert "is no array of numbers" in self.refused(path)
            path.write_bytes(before)

    @pytest.mark.parametrize(
        ("change", "reason"),
        [
            (without("images"), "lacks 'images'"),
            (without("explanation"), "it cannot be read (KeyError"),
            (without("parts/union"), "lacks 'parts/union'"),
            (entry("parts/other", array(np.zeros((2, 4, 6)))), "it has 'parts/other' too much"),
            (entry("other", array(np.zeros(2))), "it has 'other' too much"),
            (lambda entries: {**entries, "readme.txt": b"hello"}, "it has 'readme.txt' too much"),
            (entry("maps", array(np.zeros((2, 4, 6), "U1"))), "'maps' is of dtype <U1"),
            (entry("targets", array(np.zeros(2))), "'targets' is of dtype float64"),
            (entry("targets", array(np.zeros((2, 2), int))), "targets of shape (2, 2)"),
            (entry("scores", array(np.zeros(3))), "'scores' has shape (3,), and the targets (2,)"),
            (entry("weights/file", array(np.zeros(3))), "'weights/file' has shape (3,)"),
            (entry("maps", array(np.zeros((3, 4, 6)))), "'maps' has shape (3, 4, 6)"),
            (entry("parts/union", array(np.zeros((3, 4, 6)))), "'parts/union' has shape (3, 4, 6)"),
            (entry("maps", array(np.zeros(2))), "there are maps of shape (2,)"),
            (entry("class_probabilities", array(np.zeros((2, 2)))), "there are maps"),
            (entry("maps", array(np.zeros((2, 4, 6)))[:-8]), "not as long as it says"),
            (entry("maps", array(np.zeros((2, 4, 6))) + bytes(8)), "not as long as it says"),
            (lambda entries: {**entries, "maps.npy": longer(entries["maps.npy"])}, "not as long as it says"),
            (entry("maps", b"\x93NUMPY\x07\x00" + bytes(100)), "no array as NumPy writes them"),
            (entry("maps", b"\x93NUMPY\x01\x00\x10\x00{'shape': [[[[[["), "it cannot be read"),
            (entry("explanation", array("{")), "it cannot be read (JSONDecodeError"),
            (entry("explanation", array("[" * 100_000)), "it cannot be read (RecursionError"),
            (entry("explanation", array("[]")), "'explanation' is no list of fields"),
            (entry("explanation", array(np.zeros(2))), "'explanation' is no text"),
            (text(lambda values: values.pop("method")), "its fields are 'evaluations'"),
            (text(lambda values: values.pop("parts")), "its parts are None"),
            (field("weights", "file"), "its weights are 'file'"),
            (field("parts", ["union", 3]), "its parts are ['union', 3]"),
            (field("secret", 1), "its fields are"),
            (field("method", 3), "its method is 3"),
            (field("layer", None), "its layer is None"),
            (field("model", []), "its model is []"),
            (field("evaluations", -1), "its evaluations is -1"),
            (field("evaluations", True), "its evaluations is True"),
            (field("image_channel_axis", "first"), "its image_channel_axis is 'first'"),
            (field("titles", {"maps": 3}), "its titles is {'maps': 3}"),
            (field("names", ["a", "b"]), "its names is ['a', 'b']"),
            (field("indices", [-1]), "its indices is [-1]"),
            (field("files", "a"), "its files is 'a'"),
            (field("provenance", "mine"), "its provenance is 'mine'"),
            (field("provenance", {}), "Expected the values of a provenance"),
            (in_provenance("version", 1), "got one whose version is 1"),
            (in_provenance("method", None), "got one whose method is None"),
            (in_provenance("options", []), "got one whose options is []"),
            (in_provenance("layers", "a"), "got one whose layers is 'a'"),
            (in_provenance("model", {}), "got one whose model is {}"),
            (in_provenance("weights_digest", 7), "got one whose weights_digest is 7"),
            (in_provenance("frameworks", {"torch": 2}), "got one whose frameworks is {'torch': 2}"),
            (in_provenance("device", None), "got one whose device is None"),
        ],
    )  # fmt: skip
    def test_an_entry_that_cannot_be(self, path: Path, change: Any, reason: str) -> None:
        rewrite(path, change)
        assert reason in self.refused(path)

    def test_two_entries_of_one_name(self, path: Path) -> None:
        with zipfile.ZipFile(path, "a") as file, pytest.warns(UserWarning, match="Duplicate name"):
            file.writestr("maps.npy", array(np.zeros((2, 4, 6))))
        assert "it holds something else" in self.refused(path)

    @pytest.mark.parametrize("compression", [zipfile.ZIP_BZIP2, zipfile.ZIP_LZMA])
    def test_another_compression(self, path: Path, compression: int) -> None:
        rewrite(path, lambda entries: entries, compression)
        assert "it holds something else" in self.refused(path)

    def test_entries_that_are_not_compressed_may_be_read(self, path: Path) -> None:
        before = Explanation.load(path)
        rewrite(path, lambda entries: entries, zipfile.ZIP_STORED)
        assert Explanation.load(path) == before


class Bomb:
    """Fails the test that unpickles it."""

    def __reduce__(self) -> Any:
        return pytest.fail, ("it was unpickled",)


def rewrite(path: Path, change: Any, compression: int = zipfile.ZIP_DEFLATED) -> None:
    entries = change(entries_of(path))
    with zipfile.ZipFile(path, "w", compression) as file:
        for name, content in entries.items():
            file.writestr(name, content)

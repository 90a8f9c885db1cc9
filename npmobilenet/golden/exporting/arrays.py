"""Arrays as files: memory images for Verilog's $readmemh, C headers, or .npy; and names for them."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np

from npmobilenet.errors import InputError
from npmobilenet.golden.dump import sanitized
from npmobilenet.modeldata import Array

FORMATS = {"hex": ".hex", "c": ".h", "npy": ".npy"}
C_TYPES = {"int8": "int8_t", "uint8": "uint8_t", "int16": "int16_t", "int32": "int32_t", "int64": "int64_t",
           "float32": "float", "float64": "double"}  # fmt: skip
_IN_A_LINE = 16
LONGEST_NAME = 60


def symbol(prefix: str, name: str) -> str:
    """A name for a file and for C: `prefix`, which makes it unique, and what remains of `name`.

    Of a long one the first of the names that a converter joined (";") counts, and of that its beginning and its end.
    """
    plain = _plain(name)
    plain = _plain(name.partition(";")[0]) if len(plain) > LONGEST_NAME else plain
    if len(plain) > LONGEST_NAME:
        half = LONGEST_NAME // 2 - 1
        plain = f"{plain[:half].rstrip('_')}__{plain[-half:].lstrip('_')}"
    return f"{prefix}_{plain}" if plain else prefix


def _plain(name: str) -> str:
    return re.sub(r"[^A-Za-z0-9]+", "_", sanitized(name)).strip("_")


def write(path: Path, array: Array, name: str, kind: str, axes: Sequence[str] = ()) -> None:
    """Write an array in one of FORMATS; `name` is the C symbol. Raises `InputError` for values C can't say."""
    if kind == "npy":
        np.save(path, np.ascontiguousarray(array, array.dtype.newbyteorder("<")), allow_pickle=False)
    elif kind == "hex":
        path.write_text(to_hex(array), encoding="ascii", newline="\n")
    else:
        path.write_text(to_c(array, name, axes), encoding="ascii", newline="\n")


def to_hex(array: Array) -> str:
    """One value in each line, row-major: two's complement, or a float's IEEE 754 bits, as wide as the dtype."""
    width = 2 * array.dtype.itemsize
    text = np.ascontiguousarray(array, array.dtype.newbyteorder(">")).tobytes().hex()
    return "".join(f"{text[i : i + width]}\n" for i in range(0, len(text), width))


def to_c(array: Array, name: str, axes: Sequence[str] = ()) -> str:
    """A header with one constant array, flat, row-major; floats in hexadecimal notation, which is exact."""
    kind = C_TYPES[str(array.dtype)]
    literals = [_literal(v) + "f" * (array.dtype == np.float32) for v in array.reshape(-1).tolist()]
    lines = [", ".join(literals[i : i + _IN_A_LINE]) for i in range(0, len(literals), _IN_A_LINE)]
    shape = "x".join(map(str, array.shape))
    body = ",\n    ".join(lines)
    order = f" ({', '.join(axes)})" if axes else ""
    return (
        f"/* {array.dtype} {shape}{order}, row-major */\n#ifndef {name.upper()}_H\n#define {name.upper()}_H\n"
        "#include <stdint.h>\n"
        f"static const {kind} {name}[{array.size}] = {{\n    {body}\n}};\n#endif\n"
    )


def _literal(value: int | float) -> str:
    if isinstance(value, float):
        if not np.isfinite(value):
            raise InputError(f"the value {value} has no constant in C: export as npy or hex")
        return value.hex()
    if value == -(2**31):
        return "(-2147483647 - 1)"  # 2147483648 isn't an int
    return str(value)


def macros(values: Mapping[str, int | float | str]) -> str:
    """`#define` lines."""
    return "".join(f"#define {name} {value}\n" for name, value in values.items())

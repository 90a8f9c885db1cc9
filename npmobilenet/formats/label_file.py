"""Files of class names: a text of one name a line, numbered or not, a table of names and numbers, or one of the JSON
forms that programs write.

Told apart by content. The numbers of a numbered list are the outputs' (from 0, or from 1), and they aren't part of the
names: "0 daisy" (Teachable Machine), "0  daisy" (Coral), "0: daisy", "0,daisy".
"""

from __future__ import annotations

import ast
import codecs
import csv
import json
import os
import re
import stat
import warnings
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from npmobilenet.errors import InputError

MAX_LABEL_BYTES = 2**20  # ImageNet's 21,841 names have half of that
BESIDE = "labels.txt"  # what Teachable Machine puts beside its models
FORMS = (
    "a text file of one name a line (in UTF-8, numbered or not), a CSV table of names and numbers, or JSON: a list of "
    "names, or names by number or numbers by name"
)
_NUMBERED = re.compile(r"(\d{1,6})(?:\s*[:,;\t]\s*|\s+)(\S.*)")


def read_labels(path: str | os.PathLike[str]) -> tuple[str, ...]:
    """The class names in a file, in the order of a model's outputs. Raises `InputError`."""
    file = Path(path)
    where = f"labels '{file}'"
    try:
        status = file.stat()
        if not stat.S_ISREG(status.st_mode):  # a pipe could block for ever
            raise InputError(f"{where}: expected {FORMS}, got what is no regular file")
        if status.st_size > MAX_LABEL_BYTES:
            raise InputError(
                f"{where}: {status.st_size:,} bytes, at most {MAX_LABEL_BYTES:,} are read: expected {FORMS}"
            )
        content = file.read_bytes()
    except FileNotFoundError:
        raise InputError(f"{where}: there is no such file: expected {FORMS}; check the path") from None
    except (OSError, ValueError) as error:  # ValueError: a null character in the path
        raise InputError(f"{where} can't be read: {getattr(error, 'strerror', None) or error}") from error
    return parse_labels(content, where)


def parse_labels(content: bytes, where: str) -> tuple[str, ...]:
    """The class names in the bytes of a file, which messages call `where`. Raises `InputError`."""
    wide = content.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE))  # "Unicode" of Windows' editors
    try:
        text = content.decode("utf-16" if wide else "utf-8-sig")
    except ValueError:
        raise InputError(f"{where}: no text in UTF-8: expected {FORMS}; save it as UTF-8") from None
    if "\0" in text:
        raise InputError(f"{where}: it holds null characters, as no text does: expected {FORMS}")
    if text.lstrip()[:1] in ("[", "{"):
        document = _document(text)
        if document is not None:
            return label_list(document, where)
    lines = [line.strip() for line in re.split(r"\r\n|\r|\n", text)]
    names = [line for line in lines if line]
    if not names:
        raise InputError(f"{where}: it is empty: expected {FORMS}")
    return _without_numbers(names)


def _document(text: str) -> Any:
    """What a text of JSON holds, or of a Python dict or list, as people print it; None for a name that begins so."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of Python's parser
        for read in (json.loads, ast.literal_eval):
            try:
                return read(text)
            except (ValueError, SyntaxError, TypeError, RecursionError, MemoryError):
                continue
    return None


def label_list(document: Any, where: str) -> tuple[str, ...]:
    """The class names in a list, or in a mapping from or to their numbers. Raises `InputError`.

    The mappings that are known: `{"0": "daisy"}`; `{"daisy": 0}` (`class_indices` of Keras' generators);
    `{"0": ["n11939491", "daisy"]}` (Keras' imagenet_class_index.json); `{"id2label": {...}}` (Hugging Face's
    config.json); `{"labels": [...]}` (Teachable Machine's metadata.json).
    """
    if isinstance(document, Mapping):
        for key in ("labels", "id2label"):
            if isinstance(document.get(key), (Mapping, list)):
                document = document[key]
                break
    if isinstance(document, Mapping):
        turned = all(isinstance(number, int) for number in document.values())
        pairs = [(number, name) for name, number in document.items()] if turned else list(document.items())
        found = {str(number): name[-1] if isinstance(name, list) and name else name for number, name in pairs}
        document = [found.get(str(i)) for i in range(len(pairs))]
    if not isinstance(document, Sequence) or isinstance(document, (str, bytes)) or not document:
        raise InputError(f"{where}: got {type(document).__name__}: expected {FORMS}")
    wrong = next((i for i, name in enumerate(document) if not isinstance(name, str) or not name.strip()), None)
    if wrong is not None:
        raise InputError(f"{where}: no name of class {wrong} among the {len(document)}: expected {FORMS}")
    return tuple(name.strip() for name in document)


def _without_numbers(lines: list[str]) -> tuple[str, ...]:
    """The names of a list whose lines are all numbered, each number once, in the order of these; else the lines."""
    matches = [_NUMBERED.fullmatch(line) for line in lines]
    pairs = [(match[1], match[2]) for match in matches if match]
    return _by_number(pairs, len(lines)) or _of_table(lines) or tuple(lines)


def _by_number(pairs: Sequence[tuple[str, str]], count: int) -> tuple[str, ...]:
    """Names in the order of their numbers; () unless these are 0, 1, 2, ... or 1, 2, 3, ..., each once, `count` all."""
    found = {int(number): name.strip() for number, name in pairs if re.fullmatch(r"[0-9]{1,6}", number)}
    for first in (0, 1):
        if count > first and all(found.values()) and set(found) == set(range(first, first + count)):
            return tuple(found[i] for i in sorted(found))
    return ()


def _of_table(lines: list[str]) -> tuple[str, ...]:
    """The names of a table of two columns, numbers and names in either order, with or without a row of titles."""
    for separator in ",;\t":
        try:
            rows = [[cell.strip() for cell in row] for row in csv.reader(lines, delimiter=separator, strict=True)]
        except csv.Error:
            continue
        for body in (rows, rows[1:]):
            if body and all(len(row) == 2 for row in rows):
                for number, name in ((0, 1), (1, 0)):
                    if names := _by_number([(row[number], row[name]) for row in body], len(body)):
                        return names
    return ()


def labels_beside(model: Path, count: int) -> tuple[str, ...]:
    """The names in a file labels.txt beside a model; () without one, or where it hasn't `count` names."""
    try:
        names = read_labels(model.parent / BESIDE)
    except InputError:
        return ()
    return names if len(names) == count else ()

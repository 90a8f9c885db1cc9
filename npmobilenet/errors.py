"""Every error that npmobilenet raises on bad input: one small family, all of them `NpMobilenetError`.

Each message says what was wrong, where, what was expected and found, and what to do next. The command
line turns any of them into one line on standard error and exit code 2.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from itertools import islice

MOST_NAMES = 5000  # that are compared with a mistaken one: a file may hold any number
MAX_CHARACTERS = 20_000  # of one message
LONGEST_NAME = 60  # characters of a tensor's name, where people read it
_QUOTED = re.compile(r"(?<=')([^'\s]{61,})(?=')")
_PATH = re.compile(r"[/.~].*|.*(://|\\).*|.*\.[a-z0-9-]{1,16}|[0-9a-f]+", re.DOTALL)  # or a sum: these stay whole


def short_name(name: str) -> str:
    """A tensor's name where people read it: its last characters, and of a list of names ("a;b;c") the first.

    TFLite calls what an operator gives by all that it was made of, the last step first; that is the telling one.
    """
    if len(name) <= LONGEST_NAME:
        return name
    first = next((part for part in name.split(";") if part), name)
    return first if len(first) <= LONGEST_NAME else f"...{first[3 - LONGEST_NAME :]}"


def one_line(text: str) -> str:
    """`text` as one printable line: names out of a hostile file could otherwise steer a terminal, or fill it.

    Long names in quotation marks are shortened, unless they look like a path.
    """
    text = _QUOTED.sub(lambda found: found[0] if _PATH.fullmatch(found[0]) else short_name(found[0]), text)
    if len(text) > MAX_CHARACTERS:
        text = f"{text[: MAX_CHARACTERS // 2]} ... {text[-MAX_CHARACTERS // 4 :]} ({len(text):,} characters)"
    if text.isprintable():
        return text
    return "".join(" " if c.isspace() else c if c.isprintable() else repr(c)[1:-1] for c in text)


class NpMobilenetError(Exception):
    """Base of all errors caused by what the caller gave: a file, a name, an array, an option.

    Its message is one printable line.
    """

    def __init__(self, message: object = "") -> None:
        super().__init__(one_line(str(message)))


class ModelNotFound(NpMobilenetError):
    """No registered model and no file answers to the name."""


class GraphError(NpMobilenetError):
    """A graph is inconsistent: a dangling or duplicate name, shapes that do not fit, an unknown op."""


class PlanError(NpMobilenetError):
    """A graph is sound but can't be run as asked: missing weights, an unknown tap, no kernel for a dtype."""


class WeightFileError(NpMobilenetError):
    """A weight file (.h5 of this project) is not one, is damaged, or holds what the format forbids."""


class ConversionError(NpMobilenetError):
    """A foreign model file (TensorFlow checkpoint, .tflite, Keras, PyTorch) can't be read or mapped."""


class DownloadError(NpMobilenetError):
    """A published model can't be fetched: no network, a server that refuses, another sum than the known one."""


class InputError(NpMobilenetError):
    """An image or input array is unfit for the model: dtype, layout, range, size, or undecodable bytes."""


class MissingExtra(NpMobilenetError):
    """An optional package is needed; the message holds the pip command that installs it."""

    def __init__(self, package: str, extra: str, purpose: str) -> None:
        super().__init__(
            f"{purpose} needs the package '{package}', which is not installed. "
            f"Install it with: pip install 'npmobilenet[{extra}]'"
        )


def nearest(word: str, known: Iterable[str], count: int = 3) -> list[str]:
    """The names that are most like a mistaken one, best first, for a message; case and "-" or "_" don't matter.

    A name that holds the word, or the parts of it, comes before one that merely shares letters with it.
    """
    from difflib import SequenceMatcher

    def plain(text: str) -> str:
        return text.casefold().replace("-", "_")

    matcher = SequenceMatcher(autojunk=False)
    matcher.set_seq2(plain(word)[:200])  # of a text of any length
    scored = []
    for name in islice(dict.fromkeys(known), MOST_NAMES):
        matcher.set_seq1(plain(name)[:200])
        shared = sum(block.size for block in matcher.get_matching_blocks() if block.size > 1)
        scored.append((-(matcher.ratio() + shared / max(len(word[:200]), 1)), name))
    return [name for _, name in sorted(scored, key=lambda pair: pair[0])[:count]]

"""The page of `npmobilenet explore`: page/ put together, alone (with all values in it) or to be served.

What comes from a model or a file name stands in the page as escaped text or JSON; the page's script writes it as text,
never as HTML, and its Content-Security-Policy lets it load nothing.
"""

from __future__ import annotations

import json
from html import escape
from importlib.resources import files

import numpy as np

from npmobilenet.errors import InputError
from npmobilenet.views.explorer import Explorer

SCRIPTS = ("arithmetic.js", "kernels.js", "explore.js")
MOST_BYTES = 64 * 2**20  # of values and weights in one file; a browser takes some seconds for it


def page(explorer: Explorer, alone: bool) -> str:
    """The page as HTML: `alone` with all layers and values, otherwise for a server that answers for them.

    Raises `InputError` for a model too large for a page alone.
    """
    document = explorer.document()
    blobs: list[str] = []
    if alone:
        _check_size(explorer)
        first = len(explorer.graph.inputs)
        for i, layer in enumerate(document["layers"][first:], first):
            layer["steps"] = explorer.layer(i)
        blobs = [
            f'<script type="text/plain" id="blob-{key}">{_text(explorer.blob(key))}</script>'
            for key in explorer.blob_keys
        ]
    # "<" can't end a script element where there is none.
    inserted = {
        "connect": "'none'" if alone else "'self'",
        "title": escape(f"npmobilenet: {explorer.data.info.name}"),
        "style": _part("style.css"),
        "document": json.dumps(document, allow_nan=False).replace("<", "\\u003c"),
        "blobs": "\n".join(blobs),
        "script": "\n".join(_part(name) for name in SCRIPTS),
    }
    pieces = _part("page.html").split("{{")
    text = pieces[0]
    for piece in pieces[1:]:
        name, _, rest = piece.partition("}}")
        text += inserted[name] + rest
    return text


def _part(name: str) -> str:
    return files("npmobilenet.views").joinpath("page", name).read_text(encoding="utf-8")


def _text(blob: bytes) -> str:
    """Bytes as text for a script element: a character for 7 bits, the last one filled up with zeros.

    Characters that HTML would change or that could end the element (NUL, CR, "<") are moved up by 256, which leaves
    their last 7 bits. Base 85 would take 7 % more, and the flowers model's page would be larger than 6 MB.
    """
    bits = np.unpackbits(np.frombuffer(blob, np.uint8))
    groups = np.packbits(np.pad(bits, (0, -len(bits) % 7)).reshape(-1, 7), axis=1) >> 1
    return groups.tobytes().decode("ascii").translate({code: 256 + code for code in b"\0\r<"})


def _check_size(explorer: Explorer) -> None:
    tensors = [explorer.graph.tensors[name] for name in explorer.tensors]
    size = sum(t.size * (1 if t.dtype in ("int8", "uint8") else 4) for t in tensors)
    if size > MOST_BYTES:
        raise InputError(
            f"{explorer.data.info.name}: weights and values take {size / 2**20:,.0f} MiB, a page alone holds at most "
            f"{MOST_BYTES // 2**20}; use --serve, which sends a browser the layers that it asks for"
        )

"""A dump seen through a catalogue: its arrays found by our names, in our shapes and dtypes."""

from __future__ import annotations

from collections.abc import Sequence

from npmobilenet.errors import InputError
from npmobilenet.golden.catalogue import Entry
from npmobilenet.golden.dump import Dump
from npmobilenet.golden.name_match import NameMap, match_names
from npmobilenet.golden.shape_match import LAYOUTS, ShapeMatch, detect, fit
from npmobilenet.modeldata import Array


class DumpView:
    """A dump whose arrays are matched to a catalogue: `files` maps an entry's name to the dump's array."""

    def __init__(self, dump: Dump, known: Sequence[Entry], names: NameMap, layout: str) -> None:
        if layout not in LAYOUTS:
            raise InputError(f"layout='{layout}' is not one of {', '.join(LAYOUTS)}")
        self.dump = dump
        self.own = {entry.name: entry for entry in dump.entries}
        matching = match_names(dump, known, {} if dump.manifest else names)
        self.files, self.left_over = matching.files, matching.left_over
        self.layout = "nhwc" if dump.manifest else layout
        if self.layout == "auto":
            wanted = {entry.name: entry.shape for entry in known}
            pairs = [(dump.read(stem).shape, wanted[name]) for name, stem in self.files.items()]
            self.layout = detect(pairs)

    def notes(self, letter: str) -> list[str]:
        """What to say of this side as a whole."""
        found = []
        if self.dump.manifest is None:
            found.append(f"{letter} has no manifest: {len(self.files)} arrays matched by name")
            if self.layout == "nchw":
                found.append(f"{letter} is NCHW: its arrays of rank 4 were transposed to NHWC")
        if self.left_over:
            names = ", ".join(self.left_over[:4]) + (", ..." if len(self.left_over) > 4 else "")
            found.append(f"{letter}: {len(self.left_over)} arrays match nothing: {names}")
        return found

    def __contains__(self, name: str) -> bool:
        return name in self.files

    def read(self, entry: Entry) -> tuple[Array, list[str]]:
        """The entry's array as it is in the dump, and what to say of it."""
        array = self.dump.read(self.files[entry.name])
        own = self.own.get(entry.name)
        edited = own is not None and self.dump.changed(own, array)
        return array, ["edited since it was recorded"] if edited else []

    def fit(self, array: Array, entry: Entry, shape: tuple[int, ...]) -> ShapeMatch:
        """An array of this dump as one of the entry's dtype and of the given shape."""
        return fit(array, shape, entry.dtype, entry.quantization, self.layout)

    def get(self, entry: Entry) -> Array:
        """The entry's array, in its dtype and, but for the batch, its shape. Raises `InputError`."""
        array, _ = self.read(entry)
        batch = array.shape[0] if array.ndim == len(entry.shape) else entry.shape[0]
        fitted = self.fit(array, entry, (batch, *entry.shape[1:]))
        if fitted.array is None:
            raise InputError(f"'{self.dump.path}': '{self.files[entry.name]}' for '{entry.name}': {fitted.problem}")
        return fitted.array

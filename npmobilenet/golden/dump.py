"""Reading a dump: one that `record` wrote, or anyone's folder or .npz archive of arrays."""

from __future__ import annotations

import hashlib
import os
from pathlib import Path

from npmobilenet.errors import InputError
from npmobilenet.golden.arrays import MAX_MEMBERS, Archive, read_npy
from npmobilenet.golden.catalogue import Entry
from npmobilenet.golden.manifest import MANIFEST, MAX_BYTES, Manifest, from_json
from npmobilenet.modeldata import Array


class Dump:
    """A folder of .npy files, or an .npz archive, with a manifest of this project's or without one.

    `manifest` is None for a foreign dump. `files` maps each array's name (its file's name without ".npy") to its file.

    Raises `InputError` if it can't be read, or its manifest is damaged.
    """

    def __init__(self, path: str | os.PathLike[str]) -> None:
        self.path = Path(path)
        self._archive: Archive | None = None
        try:
            is_folder = self.path.is_dir()
            names = [p.name for p in self.path.iterdir()] if is_folder else []
        except (OSError, ValueError) as error:
            raise InputError(f"'{path}' can't be read: {error}") from error
        if not is_folder:
            if self.path.suffix == ".npy":
                raise InputError(f"'{path}' is a single array: expected a folder of .npy files, or an .npz archive")
            if self.path.is_file() and self.path.suffix != ".npz":
                raise InputError(f"'{path}': expected a folder of .npy files, or an .npz archive")
            self._archive = Archive(self.path)
            names = self._archive.names
        if len(names) > MAX_MEMBERS:
            raise InputError(f"'{path}' holds {len(names):,} files, at most {MAX_MEMBERS:,} are allowed")
        self.files = {name.removesuffix(".npy"): name for name in sorted(names) if name.endswith(".npy")}
        self.manifest = self._read_manifest() if MANIFEST in names else None
        if not self.files:
            raise InputError(f"'{path}' holds no .npy files: expected a dump, one array in each file")

    def _read_manifest(self) -> Manifest:
        where = self.path / MANIFEST
        if self._archive is not None:
            text = self._archive.text(MANIFEST, MAX_BYTES)
        else:
            try:
                if not where.is_file():
                    raise OSError("expected a regular file")
                with open(where, "rb") as file:
                    text = file.read(MAX_BYTES + 1)
            except OSError as error:
                raise InputError(f"'{where}' can't be read: {error.strerror or error}") from error
            if len(text) > MAX_BYTES:
                raise InputError(f"'{where}' has more than {MAX_BYTES:,} bytes: that is no manifest")
        manifest = from_json(text, str(where))
        lost = [entry.file for entry in manifest.entries if entry.file.removesuffix(".npy") not in self.files]
        if lost:
            raise InputError(
                f"'{self.path}' lacks {len(lost)} of the {len(manifest.entries)} files that its manifest lists, "
                f"{lost[0]} for one; record it anew, or delete the manifest to read the rest as a foreign dump"
            )
        return manifest

    def __repr__(self) -> str:
        return f"<Dump {self.path}: {len(self.files)} arrays{'' if self.manifest else ', no manifest'}>"

    @property
    def entries(self) -> list[Entry]:
        """What the manifest lists, in graph order; none for a foreign dump."""
        return [] if self.manifest is None else list(self.manifest.entries)

    def read(self, name: str) -> Array:
        """The array of a file, by the name in `files`. Raises `InputError`."""
        if name not in self.files:
            raise InputError(f"'{self.path}' has no array '{name}'")
        member = self.files[name]
        return read_npy(self.path / member) if self._archive is None else self._archive.read(member)

    def __getitem__(self, name: str) -> Array:
        """The array of a tensor or tap by its name in the manifest, or of a file. Raises `InputError`."""
        for entry in self.entries:
            if name in (entry.name, entry.source, *entry.aliases):
                return self.read(entry.file.removesuffix(".npy"))
        return self.read(name)

    def changed(self, entry: Entry, array: Array) -> bool:
        """Whether a recorded array is no longer the one whose sha256 the manifest gives."""
        data = array.astype(array.dtype.newbyteorder("<"), copy=False).tobytes()
        return bool(entry.sha256) and hashlib.sha256(data).hexdigest() != entry.sha256

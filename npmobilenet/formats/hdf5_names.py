"""The names in an HDF5 group that somebody else made."""

from __future__ import annotations

from typing import Any


def member_names(group: Any) -> list[str]:
    """The names of a group's members, in the order in which HDF5 finds them.

    h5py's own iteration asks for them in order of creation or of the alphabet. For a group of more than eight members
    HDF5 (1.14.6) then makes a table of all links, and where one of them is damaged it frees entries of that table which
    it hasn't filled: the process crashes. In its own order it needs no table, and says what is wrong.
    """
    import h5py

    found: list[bytes] = []
    group.id.links.iterate(found.append, idx_type=h5py.h5.INDEX_NAME, order=h5py.h5.ITER_NATIVE)
    return [name.decode("utf-8", "surrogateescape") for name in found]

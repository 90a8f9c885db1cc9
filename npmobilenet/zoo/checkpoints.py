"""The registry: every published checkpoint under its canonical name, and look-ups by any spelling.

The rows are made from the tables of published.py, their aliases by the rules of names.py. Look-ups
ignore case and take "-" for "_".
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from functools import cache
from types import MappingProxyType
from typing import TYPE_CHECKING

from npmobilenet.errors import ModelNotFound
from npmobilenet.zoo import published
from npmobilenet.zoo.names import (
    FAMILIES,
    ModelName,
    canonical,
    normalise,
    relatives,
    spellings,
    timm_ports,
    timm_relatives,
)
from npmobilenet.zoo.notes import published_note
from npmobilenet.zoo.published import Row, Table

if TYPE_CHECKING:
    from pathlib import Path

__all__ = [
    "CHECKPOINTS",
    "FAMILIES",
    "Checkpoint",
    "ModelName",
    "aliases",
    "list_models",
    "locate",
    "on_this_machine",
    "parse",
    "published_note",
    "resolve",
]


@dataclass(frozen=True, kw_only=True, eq=False)
class Checkpoint:
    """A published checkpoint.

    `published` maps the table's headings to the row's cells, both as printed; `label` is the row's
    text and `url` the address that it links to; `table` and `source` say which table of which page.
    """

    name: str
    family: str
    depth_multiplier: float
    resolution: int
    dtype: str
    label: str
    url: str
    table: str
    source: str
    published: Mapping[str, str]

    def __post_init__(self) -> None:
        """Make `published` read-only."""
        object.__setattr__(self, "published", MappingProxyType(dict(self.published)))

    @property
    def model(self) -> ModelName:
        """The parts of its canonical name."""
        return ModelName(
            family=self.family,
            depth_multiplier=self.depth_multiplier,
            resolution=self.resolution,
            dtype=self.dtype,
        )

    @property
    def macs(self) -> str:
        """Published multiply-accumulates in millions, as printed."""
        return self._cell("MACs (M)")

    @property
    def params(self) -> str:
        """Published parameters in millions, as printed."""
        return self._cell("Params (M)", "Parameters (M)", "params (M)")

    @property
    def top1(self) -> str:
        """Published top-1 accuracy in percent, as printed; "" if there is none."""
        return self._cell("Top1", "Top 1 Accuracy", "top-1")

    @property
    def top5(self) -> str:
        """Published top-5 accuracy in percent, as printed; "" if there is none."""
        return self._cell("Top 5 Accuracy", "top-5")

    def _cell(self, *headings: str) -> str:
        return next((self.published[h] for h in headings if h in self.published), "")


def _checkpoint(name: str, table: Table, row: Row, *, label: str, cells: Mapping[str, str]) -> Checkpoint:
    model = canonical(name)
    if model is None or str(model) != name or not isinstance(model.resolution, int):
        raise ValueError(f"published.py: '{name}' is not the canonical name of a square model")
    return Checkpoint(
        name=name,
        family=model.family,
        depth_multiplier=model.depth_multiplier,
        resolution=model.resolution,
        dtype=model.dtype,
        label=label,
        url=table.url_of(row),
        table=table.title,
        source=table.source,
        published=cells,
    )


def _all_checkpoints() -> Iterator[Checkpoint]:
    """One for each published row, and the float models that EdgeTPU's 8-bit rows don't mention."""
    for table in published.TABLES:
        for row in table.rows:
            name, cells = table.model_of(row), table.cells_of(row)
            yield _checkpoint(name, table, row, label=table.label_of(row), cells=cells)
            if table is published.EDGETPU:
                # The row's archive also has the float model of which the 8-bit one was made. The
                # sizes hold for both; accuracy and latencies were measured with the 8-bit one.
                sizes = {heading: cells[heading] for heading in ("MACs (M)", "Params (M)")}
                yield _checkpoint(name.removesuffix("_uint8"), table, row, label="", cells=sizes)


def _sort_key(row: Checkpoint) -> tuple[int, float, int, str]:
    return FAMILIES.index(row.family), row.depth_multiplier, row.resolution, row.dtype


CHECKPOINTS: tuple[Checkpoint, ...] = tuple(sorted(_all_checkpoints(), key=_sort_key))
BY_NAME: Mapping[str, Checkpoint] = MappingProxyType({row.name: row for row in CHECKPOINTS})


def _spellings(row: Checkpoint) -> Iterator[str]:
    archive = row.url.rpartition("/")[2].removesuffix(".tgz")
    return spellings(row.model, row.label, archive)


def index_names(rows: Iterable[Checkpoint]) -> dict[str, Checkpoint]:
    """Normalised name or alias -> checkpoint. One name for two checkpoints is a `ValueError`."""
    index: dict[str, Checkpoint] = {}
    for row in rows:
        for name in dict.fromkeys(map(normalise, (row.name, *_spellings(row)))):
            if name in index:
                raise ValueError(f"registry: '{name}' names {index[name].name} and {row.name}")
            index[name] = row
    return index


@cache
def _index() -> dict[str, Checkpoint]:
    return index_names(CHECKPOINTS)


@cache
def _relatives() -> dict[str, tuple[Checkpoint, str]]:
    """Normalised name of a model that others trained -> the checkpoint of its architecture, and whose it is."""
    return {normalise(name): (row, whose) for row in CHECKPOINTS for name, whose in relatives(row.model)}


# --------------------------------------------------------------------------------------------------
# Look-ups


def list_models(pattern: str = "*", present: bool | None = None) -> list[str]:
    """Names that match `pattern` (fnmatch), or one of whose aliases does. No match gives [].

    The published models, sorted by family, depth multiplier, resolution, and float before uint8; before them all others
    whose weights are on this machine: those in the box, `flowers` and `flowers_uint8`, and those in the folder
    NPMOBILENET_WEIGHTS, or pulled. `present=True` gives those alone that `load` finds by their names, `False` the rest.
    """
    from fnmatch import translate

    # "-" means "_", except in brackets, where it makes a range.
    parts = re.split(r"(\[[^\]]+\])", pattern)
    text = "".join(p.casefold() if p.startswith("[") else normalise(p) for p in parts)
    matches = re.compile(translate(text)).match
    found = {row.name for name, row in _index().items() if matches(name)}
    here = on_this_machine()
    published_names = [row.name for row in CHECKPOINTS if row.name in found]
    names = [*(n for n in here if n not in BY_NAME and matches(normalise(n))), *published_names]
    return [name for name in names if present is None or present == (name in here)]


def on_this_machine() -> dict[str, Path]:
    """Name -> weight file, of all that `load` finds by name; of published models the canonical name."""
    from npmobilenet.zoo.local import weight_files

    found: dict[str, Path] = {}
    for path in weight_files():
        row = published_row(path.stem)
        found.setdefault(row.name if row else path.stem, path)
    return found


def locate(name: str) -> Path | None:
    """The weight file on this machine that a name in any spelling stands for, if there is one."""
    from npmobilenet.zoo.local import weight_files

    key = normalise(name)
    exact = next((path for path in weight_files() if normalise(path.stem) == key), None)
    if exact is None and (row := published_row(name)) is not None:
        return on_this_machine().get(row.name)
    return exact


def published_row(name: str) -> Checkpoint | None:
    """The checkpoint of a name; archives hold files such as mobilenet_v2_1.0_224_float."""
    key = normalise(name)
    return _find(key) or _find(key.removesuffix("_float"))


def resolve(name: str) -> Checkpoint:
    """The published checkpoint of this canonical name or alias.

    timm's names may have "timm/" before and a tag behind: `timm/tf_mobilenetv3_large_100.in1k`.
    Raises `ModelNotFound`, with the closest names; also for a name of the same architecture with
    weights that others trained (timm's but for `tf_*`, torchvision's).
    """
    key = _key(name)
    if (row := _find(key)) is not None:
        return row
    if (note := relative_note(name)) is not None:
        raise ModelNotFound(
            f"{note}. `npmobilenet models` lists the published ones; other weights are loaded by their file's path"
        )
    if canonical(key) is not None:
        raise ModelNotFound(
            f"no checkpoint was published for {_shown(name)}{_closest(key)}. `npmobilenet models` "
            "lists the published ones; weights of your own are loaded by their file's path"
        )
    raise _not_found(name, key)


def aliases(name: str) -> tuple[str, ...]:
    """The other spellings of a checkpoint, as their users write them. Raises `ModelNotFound`."""
    row = resolve(name)
    return tuple(dict.fromkeys(s for s in _spellings(row) if s != row.name))


def parse(name: str) -> ModelName:
    """What a name stands for: any name of canonical form, published or not, or a registered alias.

    `mobilenet_v2_0.6_160`, `mobilenet_v3_small_detection_1.0_192x256`, `MobileNetV2`. The resolution
    may be {height}x{width}. An architecture is meant, so timm's and torchvision's names will do,
    whose weights and padding are others (`relative_note`). Raises `ModelNotFound`.
    """
    key = _key(name)
    if (model := canonical(key)) is not None:
        return model
    if (row := _find(key)) is not None:
        return row.model
    if (relative := _find_relative(key)) is not None:
        return relative[0].model
    raise _not_found(name, key)


def relative_note(name: str) -> str | None:
    """What to know of a name of the same architecture with other weights; None for any other name."""
    found = _find_relative(_key(name))
    if found is None:
        return None
    row, whose = found
    return (
        f"{_shown(name)} names {whose}'s model: the architecture of {row.name}, with weights and padding of its own, "
        f"which are not those published as {row.name}"
    )


def _key(name: object) -> str:
    if not isinstance(name, str):
        kind = type(name).__name__
        raise ModelNotFound(f"a model's name is a str, got {kind}. See `npmobilenet models`")
    return normalise(name)


def _find(key: str) -> Checkpoint | None:
    index = _index()
    if (row := index.get(key)) is not None:
        return row
    if (model := canonical(key)) is not None:  # 0.50 for 0.5, 224x224 for 224
        return index.get(str(model))
    head = _timm_head(key)
    row = index.get(head)
    return row if row is not None and head in timm_ports(row.model) else None


def _find_relative(key: str) -> tuple[Checkpoint, str] | None:
    if (found := _relatives().get(key)) is not None:
        return found
    head = _timm_head(key)
    found = _relatives().get(head)
    return found if found is not None and head in timm_relatives(found[0].model) else None


def _timm_head(key: str) -> str:
    """A timm name without "timm/" before and a tag behind."""
    return key.removeprefix("timm/").partition(".")[0]


def _not_found(name: str, key: str) -> ModelNotFound:
    return ModelNotFound(
        f"no model is called {_shown(name)}{_closest(key)}. `npmobilenet models` lists all names; "
        "they look like mobilenet_v2_1.0_224"
    )


def _shown(name: str) -> str:
    return repr(name if len(name) <= 80 else name[:77] + "...")


def _closest(key: str) -> str:
    """'; closest: a, b, c', or '' where nothing is similar."""
    from difflib import get_close_matches

    names_of = {normalise(name): name for name in on_this_machine()}
    names_of |= {name: row.name for name, row in _index().items()}
    near = get_close_matches(key[:80], list(names_of), n=6, cutoff=0.7)
    names = list(dict.fromkeys(names_of[name] for name in near))[:3]
    return f"; closest: {', '.join(names)}" if names else ""

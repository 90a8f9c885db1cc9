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

from npmobilenet.errors import ModelNotFound
from npmobilenet.zoo import published
from npmobilenet.zoo.names import FAMILIES, ModelName, canonical, normalise, spellings, timm_spellings
from npmobilenet.zoo.published import Row, Table

__all__ = [
    "CHECKPOINTS",
    "FAMILIES",
    "Checkpoint",
    "ModelName",
    "aliases",
    "list_models",
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


# --------------------------------------------------------------------------------------------------
# Look-ups


def list_models(pattern: str = "*") -> list[str]:
    """Canonical names that match `pattern` (fnmatch), or one of whose aliases does.

    Sorted by family, depth multiplier, resolution, and float before uint8. No match gives [].
    """
    from fnmatch import translate

    # "-" means "_", except in brackets, where it makes a range.
    parts = re.split(r"(\[[^\]]+\])", pattern)
    text = "".join(p.casefold() if p.startswith("[") else normalise(p) for p in parts)
    matches = re.compile(translate(text)).match
    found = {row.name for name, row in _index().items() if matches(name)}
    return [row.name for row in CHECKPOINTS if row.name in found]


def resolve(name: str) -> Checkpoint:
    """The published checkpoint of this canonical name or alias.

    timm's names may have "timm/" before and a tag behind: `timm/tf_mobilenetv3_large_100.in1k`.
    Raises `ModelNotFound`, with the closest names.
    """
    key = _key(name)
    if (row := _find(key)) is not None:
        return row
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
    may be {height}x{width}. Raises `ModelNotFound`.
    """
    key = _key(name)
    if (model := canonical(key)) is not None:
        return model
    if (row := _find(key)) is None:
        raise _not_found(name, key)
    return row.model


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
    head = key.removeprefix("timm/").partition(".")[0]
    row = index.get(head)
    return row if row is not None and head in timm_spellings(row.model) else None


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

    index = _index()
    near = get_close_matches(key[:80], list(index), n=6, cutoff=0.7)
    names = list(dict.fromkeys(index[name].name for name in near))[:3]
    return f"; closest: {', '.join(names)}" if names else ""


# --------------------------------------------------------------------------------------------------
# Where published and computed numbers part

_V1_MACS_075 = (
    "The published MACs are 2.6 % below what TF-slim's code needs; mobilenet_v1.py's own list of layers "
    "has 106.0 M at 128 without classifier, as computed."
)
_V1_MACS_025_192 = "The published 34 M looks like a misprint: 41 M at 224 scale to 30 M at 192."
_V1_PARAMS = "Published parameters include batch norm's gamma and beta."
_V2 = "Published MACs are rounded down; parameters leave out batch norm's gamma and beta."
_V2_SHARED = "The row is shared with the float checkpoint."
_ROUNDED_DOWN = (
    "The published parameters are rounded down, and one decimal does not tell whether they include "
    "batch norm's gamma and beta."
)
_V3_SMALL = (
    "The published MACs and parameters look like those of an older, larger model: the published file "
    "v3-small_224_1.0_uint8.tflite needs 56.5 M and holds 2.54 M, as computed."
)
_V3_SMALL_075 = "The published parameters look like those of an older, larger model, as for V3 small 1.0."
_V3_SMALL_MINIMALISTIC = (
    "The published MACs look like those of an older, larger model, as for V3 small; the parameters fit."
)
_EDGETPU_FLOAT = (
    "The row describes the 8-bit model, whose archive holds this one too; its accuracy and latencies "
    "are left out here because they were measured in 8 bits."
)


def published_note(row: Checkpoint) -> str:
    """Why published and computed MACs or parameters differ, as far as known; else ""."""
    if row.family == "v1":
        macs = _V1_MACS_075 if row.depth_multiplier == 0.75 else ""
        if (row.depth_multiplier, row.resolution) == (0.25, 192):
            macs = _V1_MACS_025_192
        return f"{macs} {_V1_PARAMS}".strip()
    if row.family == "v2":
        return _V2 if row.dtype == "float32" else f"{_V2} {_V2_SHARED}"
    if row.family == "v3_small":
        return _V3_SMALL if row.depth_multiplier == 1 else _V3_SMALL_075
    if row.family == "v3_small_minimalistic":
        return _V3_SMALL_MINIMALISTIC
    if row.family == "edgetpu":
        return _ROUNDED_DOWN if row.dtype == "uint8" else f"{_ROUNDED_DOWN} {_EDGETPU_FLOAT}"
    # V3 large 1.0: 5.46 or 5.48 M, printed as 5.4. The other rows agree when rounded.
    return _ROUNDED_DOWN if (row.family, row.depth_multiplier) == ("v3_large", 1) else ""

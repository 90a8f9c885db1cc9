"""The one dict of weights in a file: unwrapped, of the live weights or their averages, without prefix.

Training programs wrap it: {'state_dict': ...} (Lightning, timm), {'model': ..., 'model_ema': ...} (torchvision's
references), {'state_dict_ema': ...} (timm); `module.` comes from DataParallel, `_orig_mod.` from torch.compile,
`model.` from a class around the network.

Sources: pytorch/vision references/classification/train.py; huggingface/pytorch-image-models
timm/utils/checkpoint_saver.py and timm/models/_helpers.py (load_state_dict).
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from npmobilenet.errors import ConversionError
from npmobilenet.formats import archive
from npmobilenet.formats.pytorch import opcodes
from npmobilenet.formats.pytorch.safetensors import read_safetensors
from npmobilenet.formats.pytorch.values import MAX_TENSORS, TensorEntry
from npmobilenet.formats.pytorch.zip_file import read_zip

Ema = bool | str  # True, False or "auto"
_LIVE = ("state_dict", "model_state_dict", "model", "net", "network", "weights", "params")
_AVERAGES = ("state_dict_ema", "model_ema", "ema_state_dict", "ema_model", "ema", "averaged_model", "params_ema")
_INSIDE = ("state_dict", "model_state_dict", "module", "shadow")
_DEPTH = 4  # of wrappings
# The first convolution, by which a network's place among the names is found: timm's, torchvision's.
ANCHORS = ("conv_stem.weight", "features.0.0.weight")
_COUNTERS = ("num_batches_tracked", "n_averaged")  # batch norm's and AveragedModel's, which no inference reads


@dataclass(frozen=True)
class StateDict:
    """A network's variables by name, without their `prefix`; `extra` are the names of what lies outside of it.

    `ema`: they are moving averages.
    """

    entries: Mapping[str, TensorEntry]
    prefix: str = ""
    ema: bool = False
    extra: tuple[str, ...] = ()


@contextmanager
def open_state_dict(path: Path, kind: str, ema: Ema) -> Iterator[StateDict]:
    """The state dict of a file of the kind "safetensors" or "pytorch", whose tensors can be read within the `with`.

    `ema`: True takes the moving averages, False the live weights, "auto" the averages if there are any.
    Raises `ConversionError` where the file is damaged, or holds no state dict of a network known here.
    """
    if ema not in (True, False, "auto"):
        raise ConversionError(f"ema is {ema!r}, expected True, False or 'auto'")
    try:
        if kind == "safetensors":
            yield _network(path, read_safetensors(path), ema, False)
            return
        with archive.opened(path) as file:
            found, averaged = _unwrapped(path, _value(path, file), ema)
            yield _network(path, found, ema, averaged)
    except archive.ArchiveError as error:
        raise ConversionError(f"'{path.name}': {error}; fetch it again") from error
    except OSError as error:
        raise ConversionError(f"'{path}': can't be read: {error.strerror or error}") from error


def _value(path: Path, file: Any) -> Any:
    try:
        return read_zip(file)
    except opcodes.OpcodeError as error:
        raise ConversionError(f"'{path.name}': its pickle is damaged: {error}; fetch the file again") from error
    except ConversionError as error:
        raise ConversionError(f"'{path.name}': {error}") from error


def _tensors(value: Any) -> dict[str, TensorEntry]:
    """A dict's tensors; {} for anything else."""
    items = value.items() if isinstance(value, dict) else ()
    return {key: entry for key, entry in items if isinstance(key, str) and isinstance(entry, TensorEntry)}


def _unwrapped(path: Path, value: Any, ema: Ema) -> tuple[dict[str, TensorEntry], bool]:
    """The dict of weights inside of its wrappings, and whether it holds averages."""
    averaged = False
    for depth in range(_DEPTH):
        if not isinstance(value, dict):
            break
        averages = next((value[key] for key in _AVERAGES if isinstance(value.get(key), dict)), None)
        keys = _LIVE if depth == 0 else (*_LIVE, *_INSIDE)
        live = next((value[key] for key in keys if isinstance(value.get(key), dict)), None)
        if averages is not None and not averaged and (ema is not False or live is None):
            value, averaged = averages, True
        elif live is not None:
            value = live
        else:
            break
    found = _tensors(value)
    if ema is True and not averaged and found and not any("ema" in name for name in found):
        raise ConversionError(
            f"'{path.name}': ema=True, but it holds no moving averages (looked for {', '.join(_AVERAGES)}); "
            "leave ema at 'auto'"
        )
    if not found:
        raise ConversionError(
            f"'{path.name}': it holds no dict of tensors; save the weights with PyTorch: "
            "torch.save(model.state_dict(), 'weights.pth')"
        )
    if len(found) > MAX_TENSORS:
        raise ConversionError(f"'{path.name}': {len(found)} tensors, at most {MAX_TENSORS} are read")
    return found, averaged


def _network(path: Path, found: Mapping[str, TensorEntry], ema: Ema, averaged: bool) -> StateDict:
    """Take the prefix off: what stands before the first convolution's name."""
    named = {n: e for n, e in found.items() if n.rpartition(".")[2] not in _COUNTERS}
    prefixes = sorted(
        {n.removesuffix(a) for n in named for a in ANCHORS if n == a or n.endswith(f".{a}")}, key=lambda p: (len(p), p)
    )
    averages = [p for p in prefixes if "ema" in p]
    live = [p for p in prefixes if p not in averages]
    chosen = averages if averages and (ema is not False or not live) else live
    if not chosen:
        listed = ", ".join(list(named)[:5]) or "none"
        raise ConversionError(
            f"'{path.name}': none of its {len(named)} variables is the first convolution of timm's MobileNets "
            f"(conv_stem.weight) or torchvision's (features.0.0.weight); it holds {listed}, ...: other networks aren't "
            "read here; export them: litert_torch.convert(model.eval(), (sample,)).export('model.tflite')"
        )
    if len(chosen) > 1:
        listed = ", ".join(repr(p) for p in chosen[:5])
        raise ConversionError(
            f"'{path.name}': it holds {len(chosen)} networks, under {listed}; save the state dict of one alone"
        )
    prefix, others = chosen[0], tuple(p for p in prefixes if p != chosen[0])
    entries = {n.removeprefix(prefix): e for n, e in named.items() if n.startswith(prefix)}
    extra = [n for n in named if not n.startswith(prefix) and not (others and n.startswith(others))]
    if not prefix:
        extra, entries = [], {n: e for n, e in entries.items() if not (others and n.startswith(others))}
    return StateDict(entries, prefix, averaged or chosen is averages, tuple(extra))

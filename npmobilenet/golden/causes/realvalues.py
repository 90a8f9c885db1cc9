"""What 8-bit values mean, and what real values are in 8 bits; the parameters that a node's kernel gets."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from npmobilenet.golden.causes.case import Case
from npmobilenet.golden.single_node import steps
from npmobilenet.graph import Tensor
from npmobilenet.modeldata import Array


def parameters(c: Case) -> Any:
    """The record of parameters that the node's kernel gets; None where it has none."""
    calls, _ = steps(c.what, c.dialect, "reference", c.stage)
    found = (a for s in calls for a in s.args if {"low", "high"} <= set(getattr(a, "_fields", ())))
    return next(found, None)


def real_values(tensor: Tensor, array: Array) -> Array:
    """What an 8-bit array means."""
    q = tensor.quantization
    if q is None:
        return array.astype(np.float64)
    values: Array = (array.astype(np.float64) - q.zero_point[0]) * np.float64(np.float32(q.scale[0]))
    return values


def stored_values(c: Case, real: Array, whole: Callable[[Array], Array], low: int | None = None) -> Array:
    """Real values as the result's integers."""
    q, own = c.what.result.quantization, np.iinfo(c.what.result.dtype)
    assert q is not None
    with np.errstate(all="ignore"):
        v = whole(np.nan_to_num(real / np.float64(np.float32(q.scale[0])), posinf=2.0**30, neginf=-(2.0**30)))
        return np.asarray(np.clip(v + q.zero_point[0], own.min if low is None else low, own.max))


def clamped(c: Case, v: Array, p: Any) -> Array:
    """Within the bounds of the parameters."""
    return np.clip(v, p.low, p.high)


def set_fields(**fields: int) -> Callable[[Any], Any]:
    """An edit of those parameters that have all these fields."""
    return lambda p: p._replace(**fields) if set(fields) <= set(getattr(p, "_fields", ())) else p

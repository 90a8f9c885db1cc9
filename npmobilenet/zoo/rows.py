"""The row types of which the architecture tables are made, and the width rules that scale them.

A table declares channels at depth multiplier 1 and expansion *factors*; `build.py` scales and rounds. Each row is one
published layer; its position in the table gives its endpoint name.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace


@dataclass(frozen=True, kw_only=True)
class Conv:
    """A convolution k x k with `out` channels. `bn=False`: a bias instead of batch norm."""

    k: int
    out: int
    s: int = 1
    act: str = ""  # "": the table's default
    bn: bool = True


@dataclass(frozen=True, kw_only=True)
class Separable:
    """V1: depthwise k x k with stride `s`, then pointwise to `out` channels, an activation after each."""

    k: int
    out: int
    s: int = 1


@dataclass(frozen=True, kw_only=True)
class Invert:
    """Inverted residual: expand 1x1, depthwise k x k with stride `s`, squeeze-excite (`se`), project 1x1 (linear).

    The inner width is `make_divisible(expand * in_channels, expand_divisible_by)`; where it isn't greater than
    `in_channels` there is no expansion convolution. The input is added if `residual`, stride 1 and equal width allow.
    """

    k: int
    out: int
    expand: float
    s: int = 1
    se: bool = False
    act: str = ""
    residual: bool = True
    expand_divisible_by: int = 8


@dataclass(frozen=True, kw_only=True)
class Fused:
    """EdgeTPU: a k x k convolution with stride `s` both expands and filters, then project 1x1 (linear).

    With `expand=1` nothing expands, so the block is a lone 1x1 projection: there is no k x k convolution at all.
    """

    k: int
    out: int
    expand: float
    s: int = 1
    residual: bool = True


@dataclass(frozen=True, kw_only=True)
class Universal:
    """V4's universal inverted bottleneck: depthwise `start` (linear), expand 1x1, depthwise `mid`, project (linear).

    A kernel of 0 leaves that depthwise convolution out. The stride is that of `mid`, or of `start` where there is no
    `mid`. The input is added if `residual`, stride 1 and equal width allow.
    """

    start: int
    mid: int
    out: int
    expand: float
    s: int = 1
    residual: bool = True


@dataclass(frozen=True, kw_only=True)
class ReduceTo1x1:
    """V3: average pool over the whole map if it is square, else over at most `default` x `default`; stride 1."""

    default: int = 7


Row = Conv | Separable | Invert | Fused | Universal | ReduceTo1x1


def make_divisible(value: float, divisor: int = 8, min_value: int | None = None) -> int:
    """Round to the nearest multiple of `divisor`, at least `min_value` (default: `divisor`), not below 90 % of `value`.

    Example: 0.75 * 24 = 18 rounds to 16, which is below 16.2, so 24 results.

    Source: tensorflow/models research/slim/nets/mobilenet/mobilenet.py, _make_divisible.
    """
    rounded = max(min_value if min_value is not None else divisor, int(value + divisor / 2) // divisor * divisor)
    return rounded + divisor if rounded < 0.9 * value else rounded


def truncated(value: float, divisor: int = 1, min_value: int | None = None) -> int:
    """V1's rule: drop the fraction, at least `min_value` (8 by default). `divisor` is ignored.

    Source: tensorflow/models research/slim/nets/mobilenet_v1.py, `depth` in mobilenet_v1_base.
    """
    return max(int(value), min_value if min_value is not None else 8)


def squeezed(channels: int) -> int:
    """The inner width of V3's squeeze-excite: a quarter, rounded to a multiple of 8.

    Source: tensorflow/models research/slim/nets/mobilenet/conv_blocks.py, squeeze_excite.
    """
    return make_divisible(channels / 4)


@dataclass(frozen=True, kw_only=True)
class Spec:
    """An architecture: its rows and what all of them share.

    `scope` is the variable scope of TF-slim checkpoints. `min_depth` is the fewest channels that a scaled layer has.
    `finegrain` says how the last convolution is kept wide at small depth multipliers when fine-grained classification
    is asked for: "divide" (V2: only below 1), "unscaled" (V3, EdgeTPU: at any multiplier), or "" (V1: never).
    Below a multiplier of `scale_first_from`, the first convolution keeps its width. `se_width` gives the inner width of
    a squeeze-excite, `se_act` its inner activation ("": that of its row). `slim`: TF-slim has checkpoints of it.
    """

    family: str
    scope: str
    act: str
    rows: tuple[Row, ...]
    se_gate: str = "hard_sigmoid_slim"
    width: Callable[[float, int, int | None], int] = make_divisible
    finegrain: str = ""
    scale_first_from: float = 0.0
    se_width: Callable[[int], int] = squeezed
    se_act: str = "relu"
    slim: bool = True

    def with_rows(self, family: str, rows: tuple[Row, ...]) -> Spec:
        """A variant of this architecture with other rows."""
        return replace(self, family=family, rows=rows)

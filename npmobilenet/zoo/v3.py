"""MobileNetV3, arXiv:1905.02244 tables 1 and 2: large, small, their minimalistic and detection variants."""

from dataclasses import replace

from npmobilenet.zoo.rows import Conv, Invert, ReduceTo1x1, Row, Spec

# Source of all tables: tensorflow/models research/slim/nets/mobilenet/mobilenet_v3.py, V3_LARGE, V3_SMALL,
# V3_LARGE_MINIMALISTIC, V3_SMALL_MINIMALISTIC, V3_LARGE_DETECTION, V3_SMALL_DETECTION.
# Top-1: research/slim/nets/mobilenet/README.md.
# fmt: off

# Checkpoint: v3-large_224_1.0_float, 75.2 % top-1.
V3_LARGE = Spec(
    family="v3_large", scope="MobilenetV3", act="relu", finegrain="unscaled",
    rows=(                                                                     # at 224: in -> out
        Conv(  k=3, s=2, out=16, act="hard_swish"),                            # 224 -> 112   layer_1
        Invert(k=3, s=1, expand=1,      out=16),
        Invert(k=3, s=2, expand=4,      out=24),                               # 112 -> 56
        Invert(k=3, s=1, expand=3,      out=24),
        Invert(k=5, s=2, expand=3,      out=40,  se=True),                     #  56 -> 28
        Invert(k=5, s=1, expand=3,      out=40,  se=True),
        Invert(k=5, s=1, expand=3,      out=40,  se=True),
        Invert(k=3, s=2, expand=6,      out=80,           act="hard_swish"),   #  28 -> 14
        Invert(k=3, s=1, expand=2.5,    out=80,           act="hard_swish"),
        Invert(k=3, s=1, expand=184/80, out=80,           act="hard_swish"),
        Invert(k=3, s=1, expand=184/80, out=80,           act="hard_swish"),
        Invert(k=3, s=1, expand=6,      out=112, se=True, act="hard_swish"),
        Invert(k=3, s=1, expand=6,      out=112, se=True, act="hard_swish"),
        Invert(k=5, s=2, expand=6,      out=160, se=True, act="hard_swish"),   #  14 -> 7
        Invert(k=5, s=1, expand=6,      out=160, se=True, act="hard_swish"),
        Invert(k=5, s=1, expand=6,      out=160, se=True, act="hard_swish"),
        Conv(  k=1, s=1, out=960, act="hard_swish"),                           #   7          layer_17
        ReduceTo1x1(),                                                         #   7 -> 1
        Conv(  k=1, s=1, out=1280, act="hard_swish", bn=False),                #   1          layer_19
    ),
)

# Checkpoint: v3-small_224_1.0_float, 67.5 % top-1.
V3_SMALL = V3_LARGE.with_rows("v3_small", (                                    # at 224: in -> out
        Conv(  k=3, s=2, out=16, act="hard_swish"),                            # 224 -> 112   layer_1
        Invert(k=3, s=2, expand=1,      out=16, se=True),                      # 112 -> 56
        Invert(k=3, s=2, expand=72/16,  out=24),                               #  56 -> 28
        Invert(k=3, s=1, expand=88/24,  out=24),
        Invert(k=5, s=2, expand=4,      out=40, se=True, act="hard_swish"),    #  28 -> 14
        Invert(k=5, s=1, expand=6,      out=40, se=True, act="hard_swish"),
        Invert(k=5, s=1, expand=6,      out=40, se=True, act="hard_swish"),
        Invert(k=5, s=1, expand=3,      out=48, se=True, act="hard_swish"),
        Invert(k=5, s=1, expand=3,      out=48, se=True, act="hard_swish"),
        Invert(k=5, s=2, expand=6,      out=96, se=True, act="hard_swish"),    #  14 -> 7
        Invert(k=5, s=1, expand=6,      out=96, se=True, act="hard_swish"),
        Invert(k=5, s=1, expand=6,      out=96, se=True, act="hard_swish"),
        Conv(  k=1, s=1, out=576, act="hard_swish"),                           #   7          layer_13
        ReduceTo1x1(),                                                         #   7 -> 1
        Conv(  k=1, s=1, out=1024, act="hard_swish", bn=False),                #   1          layer_15
))
# fmt: on


def _minimalistic(spec: Spec, family: str) -> Spec:
    """Same widths and strides, but no squeeze-excite, no hard-swish, no 5x5: relu and 3x3 throughout."""
    rows: list[Row] = []
    for row in spec.rows:
        if isinstance(row, Invert):
            rows.append(replace(row, k=3, se=False, act=""))
        else:
            rows.append(replace(row, act="") if isinstance(row, Conv) else row)
    return spec.with_rows(family, tuple(rows))


def _narrowed(spec: Spec, family: str, first: int, last: int) -> Spec:
    """Half the output channels in rows `first` to `last` (0-based, both included): a backbone for detection."""

    def half(row: Row) -> Row:
        if not isinstance(row, (Conv, Invert)):
            raise TypeError(f"row {row} has no width to halve")
        return replace(row, out=round(row.out * 0.5))

    rows = tuple(half(row) if first <= i <= last else row for i, row in enumerate(spec.rows))
    return spec.with_rows(family, rows)


# Checkpoints: v3-large-minimalistic_224_1.0_float, 72.3 % top-1; v3-small-minimalistic_224_1.0_float, 61.9 %.
V3_LARGE_MINIMALISTIC = _minimalistic(V3_LARGE, "v3_large_minimalistic")
V3_SMALL_MINIMALISTIC = _minimalistic(V3_SMALL, "v3_small_minimalistic")

# Backbones of the SSDLite detectors; no classification checkpoint.
V3_LARGE_DETECTION = _narrowed(V3_LARGE, "v3_large_detection", 13, 16)
V3_SMALL_DETECTION = _narrowed(V3_SMALL, "v3_small_detection", 9, 12)

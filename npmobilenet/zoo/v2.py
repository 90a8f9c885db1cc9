"""MobileNetV2, arXiv:1801.04381 table 2."""

from npmobilenet.zoo.rows import Conv, Invert, Spec

# Source: tensorflow/models research/slim/nets/mobilenet/mobilenet_v2.py, V2_DEF.
# Checkpoint: mobilenet_v2_1.0_224, 71.8 % top-1 (research/slim/nets/mobilenet/README.md).
# The first block's expansion is not rounded to a multiple of 8; with factor 1 it never expands.
# fmt: off
V2 = Spec(
    family="v2", scope="MobilenetV2", act="relu6", finegrain="divide",
    rows=(                                     # at 224: in -> out
        Conv(  k=3, s=2, out=32),              # 224 -> 112   layer_1
        Invert(k=3, s=1, expand=1, out=16, expand_divisible_by=1),
        Invert(k=3, s=2, expand=6, out=24),    # 112 -> 56
        Invert(k=3, s=1, expand=6, out=24),
        Invert(k=3, s=2, expand=6, out=32),    #  56 -> 28
        Invert(k=3, s=1, expand=6, out=32),
        Invert(k=3, s=1, expand=6, out=32),
        Invert(k=3, s=2, expand=6, out=64),    #  28 -> 14
        Invert(k=3, s=1, expand=6, out=64),
        Invert(k=3, s=1, expand=6, out=64),
        Invert(k=3, s=1, expand=6, out=64),
        Invert(k=3, s=1, expand=6, out=96),
        Invert(k=3, s=1, expand=6, out=96),
        Invert(k=3, s=1, expand=6, out=96),
        Invert(k=3, s=2, expand=6, out=160),   #  14 -> 7
        Invert(k=3, s=1, expand=6, out=160),
        Invert(k=3, s=1, expand=6, out=160),
        Invert(k=3, s=1, expand=6, out=320),
        Conv(  k=1, s=1, out=1280),            #   7          layer_19
    ),
)
# fmt: on

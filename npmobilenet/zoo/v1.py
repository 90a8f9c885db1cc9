"""MobileNetV1, arXiv:1704.04861 table 1."""

from npmobilenet.zoo.rows import Conv, Separable, Spec, truncated

# Source: tensorflow/models research/slim/nets/mobilenet_v1.py, MOBILENETV1_CONV_DEFS.
# Checkpoint: mobilenet_v1_1.0_224, 70.9 % top-1 (research/slim/nets/mobilenet_v1.md).
# fmt: off
V1 = Spec(
    family="v1", scope="MobilenetV1", act="relu6", width=truncated,
    rows=(                                 # at 224: in -> out
        Conv(     k=3, s=2, out=32),       # 224 -> 112   Conv2d_0
        Separable(k=3, s=1, out=64),       # 112          Conv2d_1
        Separable(k=3, s=2, out=128),      # 112 -> 56
        Separable(k=3, s=1, out=128),      #  56
        Separable(k=3, s=2, out=256),      #  56 -> 28
        Separable(k=3, s=1, out=256),      #  28
        Separable(k=3, s=2, out=512),      #  28 -> 14
        Separable(k=3, s=1, out=512),      #  14
        Separable(k=3, s=1, out=512),
        Separable(k=3, s=1, out=512),
        Separable(k=3, s=1, out=512),
        Separable(k=3, s=1, out=512),
        Separable(k=3, s=2, out=1024),     #  14 -> 7
        Separable(k=3, s=1, out=1024),     #   7          Conv2d_13
    ),
)
# fmt: on

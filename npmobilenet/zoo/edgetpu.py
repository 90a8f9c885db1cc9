"""MobileNetEdgeTPU: V3's blocks with fused convolutions in the early layers, no squeeze-excite, no hard-swish."""

from npmobilenet.zoo.rows import Conv, Fused, Invert, Spec

# Source: tensorflow/models research/slim/nets/mobilenet/mobilenet_v3.py, V3_EDGETPU.
# Checkpoint: mobilenet_edgetpu_224_1.0, 75.6 % top-1 in 8 bits (research/slim/nets/mobilenet/README.md).
# The first block expands by 1, so it is a lone 1x1 projection; row 15 has no residual although its shapes allow one.
# fmt: off
EDGETPU = Spec(
    family="edgetpu", scope="MobilenetEdgeTPU", act="relu", finegrain="unscaled",
    rows=(                                                       # at 224: in -> out
        Conv(  k=3, s=2, out=32),                                # 224 -> 112   layer_1
        Fused( k=3, s=1, expand=1, out=16),
        Fused( k=3, s=2, expand=8, out=32),                      # 112 -> 56
        Fused( k=3, s=1, expand=4, out=32),
        Fused( k=3, s=1, expand=4, out=32),
        Fused( k=3, s=1, expand=4, out=32),
        Fused( k=3, s=2, expand=8, out=48),                      #  56 -> 28
        Fused( k=3, s=1, expand=4, out=48),
        Fused( k=3, s=1, expand=4, out=48),
        Fused( k=3, s=1, expand=4, out=48),
        Invert(k=3, s=2, expand=8, out=96),                      #  28 -> 14
        Invert(k=3, s=1, expand=4, out=96),
        Invert(k=3, s=1, expand=4, out=96),
        Invert(k=3, s=1, expand=4, out=96),
        Invert(k=3, s=1, expand=8, out=96, residual=False),      #              layer_15
        Invert(k=3, s=1, expand=4, out=96),
        Invert(k=3, s=1, expand=4, out=96),
        Invert(k=3, s=1, expand=4, out=96),
        Invert(k=5, s=2, expand=8, out=160),                     #  14 -> 7
        Invert(k=5, s=1, expand=4, out=160),
        Invert(k=5, s=1, expand=4, out=160),
        Invert(k=5, s=1, expand=4, out=160),
        Invert(k=3, s=1, expand=8, out=192),
        Conv(  k=1, s=1, out=1280),                              #   7          layer_24
    ),
)
# fmt: on

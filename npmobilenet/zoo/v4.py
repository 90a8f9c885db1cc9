"""MobileNetV4, arXiv:2404.10518, the models that are convolutions alone: universal inverted bottlenecks (UIB)."""

from npmobilenet.zoo.rows import Conv, Fused, ReduceTo1x1, Spec, Universal

# Source of all tables: tensorflow/models official/vision/modeling/backbones/mobilenet.py, MNV4ConvSmall_BLOCK_SPECS,
# _mnv4_conv_medium_block_specs, MNV4ConvLarge_BLOCK_SPECS; the same in huggingface/pytorch-image-models
# timm/models/mobilenetv3.py, _gen_mobilenet_v4, which tells how other widths are made: below a multiplier of 1 neither
# the first convolution nor the last is scaled. The hybrid models have attention, which no kernel here computes.
# `start` and `mid` are the depthwise kernels before and behind the expansion; with neither a row is two 1x1 layers.
# fmt: off
V4_CONV_SMALL = Spec(
    family="v4_conv_small", scope="MobilenetV4", act="relu", finegrain="unscaled", scale_first_from=1.0, slim=False,
    rows=(                                                      # at 224: in -> out
        Conv(k=3, s=2, out=32),                                 # 224 -> 112   layer_1
        Conv(k=3, s=2, out=32),                                 # 112 -> 56
        Conv(k=1, s=1, out=32),
        Conv(k=3, s=2, out=96),                                 #  56 -> 28
        Conv(k=1, s=1, out=64),
        Universal(start=5, mid=5, s=2, expand=3, out=96),       #  28 -> 14    layer_6
        Universal(start=0, mid=3, s=1, expand=2, out=96),
        Universal(start=0, mid=3, s=1, expand=2, out=96),
        Universal(start=0, mid=3, s=1, expand=2, out=96),
        Universal(start=0, mid=3, s=1, expand=2, out=96),
        Universal(start=3, mid=0, s=1, expand=4, out=96),
        Universal(start=3, mid=3, s=2, expand=6, out=128),      #  14 -> 7
        Universal(start=5, mid=5, s=1, expand=4, out=128),
        Universal(start=0, mid=5, s=1, expand=4, out=128),
        Universal(start=0, mid=5, s=1, expand=3, out=128),
        Universal(start=0, mid=3, s=1, expand=4, out=128),
        Universal(start=0, mid=3, s=1, expand=4, out=128),
        Conv(k=1, s=1, out=960),                                #   7          layer_18
        ReduceTo1x1(),                                          #   7 -> 1
        Conv(k=1, s=1, out=1280),                               #   1          layer_20
    ),
)

V4_CONV_MEDIUM = V4_CONV_SMALL.with_rows("v4_conv_medium", (    # at 256: in -> out
        Conv(k=3, s=2, out=32),                                 # 256 -> 128   layer_1
        Fused(k=3, s=2, expand=4, out=48),                      # 128 -> 64
        Universal(start=3, mid=5, s=2, expand=4, out=80),       #  64 -> 32
        Universal(start=3, mid=3, s=1, expand=2, out=80),
        Universal(start=3, mid=5, s=2, expand=6, out=160),      #  32 -> 16
        Universal(start=3, mid=3, s=1, expand=4, out=160),
        Universal(start=3, mid=3, s=1, expand=4, out=160),
        Universal(start=3, mid=5, s=1, expand=4, out=160),
        Universal(start=3, mid=3, s=1, expand=4, out=160),
        Universal(start=3, mid=0, s=1, expand=4, out=160),
        Universal(start=0, mid=0, s=1, expand=2, out=160),
        Universal(start=3, mid=0, s=1, expand=4, out=160),
        Universal(start=5, mid=5, s=2, expand=6, out=256),      #  16 -> 8
        Universal(start=5, mid=5, s=1, expand=4, out=256),
        Universal(start=3, mid=5, s=1, expand=4, out=256),
        Universal(start=3, mid=5, s=1, expand=4, out=256),
        Universal(start=0, mid=0, s=1, expand=4, out=256),
        Universal(start=3, mid=0, s=1, expand=4, out=256),
        Universal(start=3, mid=5, s=1, expand=2, out=256),
        Universal(start=5, mid=5, s=1, expand=4, out=256),
        Universal(start=0, mid=0, s=1, expand=4, out=256),
        Universal(start=0, mid=0, s=1, expand=4, out=256),
        Universal(start=5, mid=0, s=1, expand=2, out=256),
        Conv(k=1, s=1, out=960),                                #   8          layer_24
        ReduceTo1x1(),                                          #   8 -> 1
        Conv(k=1, s=1, out=1280),                               #   1          layer_26
))

V4_CONV_LARGE = V4_CONV_SMALL.with_rows("v4_conv_large", (      # at 384: in -> out
        Conv(k=3, s=2, out=24),                                 # 384 -> 192   layer_1
        Fused(k=3, s=2, expand=4, out=48),                      # 192 -> 96
        Universal(start=3, mid=5, s=2, expand=4, out=96),       #  96 -> 48
        Universal(start=3, mid=3, s=1, expand=4, out=96),
        Universal(start=3, mid=5, s=2, expand=4, out=192),      #  48 -> 24
        Universal(start=3, mid=3, s=1, expand=4, out=192),
        Universal(start=3, mid=3, s=1, expand=4, out=192),
        Universal(start=3, mid=3, s=1, expand=4, out=192),
        Universal(start=3, mid=5, s=1, expand=4, out=192),
        Universal(start=5, mid=3, s=1, expand=4, out=192),
        Universal(start=5, mid=3, s=1, expand=4, out=192),
        Universal(start=5, mid=3, s=1, expand=4, out=192),
        Universal(start=5, mid=3, s=1, expand=4, out=192),
        Universal(start=5, mid=3, s=1, expand=4, out=192),
        Universal(start=3, mid=0, s=1, expand=4, out=192),
        Universal(start=5, mid=5, s=2, expand=4, out=512),      #  24 -> 12
        Universal(start=5, mid=5, s=1, expand=4, out=512),
        Universal(start=5, mid=5, s=1, expand=4, out=512),
        Universal(start=5, mid=5, s=1, expand=4, out=512),
        Universal(start=5, mid=0, s=1, expand=4, out=512),
        Universal(start=5, mid=3, s=1, expand=4, out=512),
        Universal(start=5, mid=0, s=1, expand=4, out=512),
        Universal(start=5, mid=0, s=1, expand=4, out=512),
        Universal(start=5, mid=3, s=1, expand=4, out=512),
        Universal(start=5, mid=5, s=1, expand=4, out=512),
        Universal(start=5, mid=0, s=1, expand=4, out=512),
        Universal(start=5, mid=0, s=1, expand=4, out=512),
        Universal(start=5, mid=0, s=1, expand=4, out=512),
        Conv(k=1, s=1, out=960),                                #  12          layer_29
        ReduceTo1x1(),                                          #  12 -> 1
        Conv(k=1, s=1, out=1280),                               #   1          layer_31
))
# fmt: on

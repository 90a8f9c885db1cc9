"""Fast twin of reference/fully_connected.py: a pointwise convolution whose pixels are the images."""

from npmobilenet.kernels.fast.pointwise_conv2d import pack_pointwise_conv2d_f32, pointwise_conv2d_f32

pack_fully_connected_f32 = pack_pointwise_conv2d_f32
fully_connected_f32 = pointwise_conv2d_f32

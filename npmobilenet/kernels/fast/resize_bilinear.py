"""Fast twin of reference/resize_bilinear.py: the book's loops, compiled, their innermost over channels."""

from npmobilenet.kernels.jit import compile_kernel
from npmobilenet.kernels.reference.resize_bilinear import resize_bilinear_f32

resize_bilinear_f32 = compile_kernel(resize_bilinear_f32)

"""Fast twins of reference/move.py: the book's loops, compiled; they move memory and compute nothing."""

from npmobilenet.kernels.jit import compile_kernel
from npmobilenet.kernels.reference.move import concat_f32, pad_f32, reshape_f32

pad_f32 = compile_kernel(pad_f32)
reshape_f32 = compile_kernel(reshape_f32)
concat_f32 = compile_kernel(concat_f32)

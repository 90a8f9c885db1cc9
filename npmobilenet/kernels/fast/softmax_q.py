"""Fast twin of reference/softmax_q.py: the book's loops, compiled; a thousand classes take a few microseconds."""

from npmobilenet.kernels.jit import compile_kernel
from npmobilenet.kernels.reference import softmax_q as book

softmax_fixed_q = compile_kernel(book.softmax_fixed_q)
softmax_float_q = compile_kernel(book.softmax_float_q)

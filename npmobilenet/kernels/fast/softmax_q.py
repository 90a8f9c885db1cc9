"""Fast twin of reference/softmax_q.py: the book's loops, compiled; a thousand classes take a few microseconds."""

from npmobilenet.kernels.compiler.task import in_one
from npmobilenet.kernels.reference import softmax_q as book

softmax_fixed_q = in_one(book.softmax_fixed_q)
softmax_float_q = in_one(book.softmax_float_q)

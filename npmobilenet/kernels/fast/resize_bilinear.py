"""Fast twin of reference/resize_bilinear.py: the book's loops, compiled, their innermost over channels."""

from npmobilenet.kernels.compiler.task import in_one
from npmobilenet.kernels.reference import resize_bilinear as book

resize_bilinear_f32 = in_one(book.resize_bilinear_f32)

"""Fast twin of reference/resize_bilinear.py: the reference loops, compiled, their innermost over channels."""

from npmobilenet.kernels.compiler.task import in_one
from npmobilenet.kernels.reference import resize_bilinear as reference

resize_bilinear_f32 = in_one(reference.resize_bilinear_f32)

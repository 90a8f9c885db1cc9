"""Fast twin of reference/softmax_q.py: the reference loops, compiled; a thousand classes take a few microseconds."""

from npmobilenet.kernels.compiler.task import in_one
from npmobilenet.kernels.reference import softmax_q as reference

softmax_fixed_q = in_one(reference.softmax_fixed_q)
softmax_float_q = in_one(reference.softmax_float_q)

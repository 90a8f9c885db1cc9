"""Fast twins of reference/softmax.py: the reference loops, compiled; a thousand classes take a few microseconds."""

from __future__ import annotations

from npmobilenet.kernels.compiler.task import in_one
from npmobilenet.kernels.reference import softmax as reference

softmax_f32 = in_one(reference.softmax_f32)


softmax_fixed_q = in_one(reference.softmax_fixed_q)
softmax_float_q = in_one(reference.softmax_float_q)
softmax_lut_q = in_one(reference.softmax_lut_q)

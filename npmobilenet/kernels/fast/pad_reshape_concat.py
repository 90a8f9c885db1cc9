"""Fast twins of reference/pad_reshape_concat.py: the reference loops, compiled; they move memory and don't compute."""

from npmobilenet.kernels.compiler.task import in_one
from npmobilenet.kernels.reference import pad_reshape_concat as reference

pad_f32 = in_one(reference.pad_f32)
reshape_f32 = in_one(reference.reshape_f32)
concat_f32 = in_one(reference.concat_f32)

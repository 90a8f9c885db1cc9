"""Fast twins of reference/extremum.py: the reference loops, compiled."""

from __future__ import annotations

from npmobilenet.kernels.compiler.task import in_one
from npmobilenet.kernels.reference import extremum as reference

minimum_f32, minimum_q = in_one(reference.minimum_f32), in_one(reference.minimum_q)
maximum_f32, maximum_q = in_one(reference.maximum_f32), in_one(reference.maximum_q)

"""Fast twins of reference/l2_normalize.py: the reference loops, compiled."""

from __future__ import annotations

from npmobilenet.kernels.compiler.task import in_one
from npmobilenet.kernels.reference import l2_normalize as reference

l2_normalize_f32, l2_normalize_q = in_one(reference.l2_normalize_f32), in_one(reference.l2_normalize_q)

"""The engine: the loop that runs a plan."""

from __future__ import annotations

import numpy as np

from npmobilenet.modeldata import Array
from npmobilenet.runtime.plan import Plan


def run(plan: Plan, *inputs: Array, threads: int = 1) -> list[Array]:
    """Run a plan on its inputs (batch, ...). The results are views that the next run of this plan overwrites."""
    for target, source in zip(plan.inputs, inputs, strict=True):
        np.copyto(target, source, casting="no")
    for function in plan.functions:
        function(threads)
    return plan.outputs

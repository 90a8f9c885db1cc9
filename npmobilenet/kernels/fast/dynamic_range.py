"""Fast twins of reference/dynamic_range.py: the reference loops, compiled; threads share the images."""

from __future__ import annotations

from npmobilenet.kernels.compiler.deferred import register_jitable
from npmobilenet.kernels.compiler.task import task
from npmobilenet.kernels.compiler.work_sharing import Work
from npmobilenet.kernels.reference import dynamic_range as reference

_quantize, _scale = register_jitable(reference.quantize_rows_q), register_jitable(reference.scale_sums_f32)


def images(x, rule, phases, q, params):
    """Units are images."""
    return Work(x.shape[0], 8 * x.shape[1] * x.shape[2] * x.shape[3])


@task(images)
def quantize_rows_q(start, stop, x, rule, phases, q, params):
    """As the reference."""
    each = phases[0] * phases[1]
    _quantize(x[start:stop], rule, phases, q[start:stop], params[start * each : stop * each])


def output_images(acc, borders, rows, channels, order, activation, out):
    """Units are images."""
    return Work(out.shape[0], 8 * out.shape[1] * out.shape[2] * out.shape[3])


@task(output_images)
def scale_sums_f32(start, stop, acc, borders, rows, channels, order, activation, out):
    """As the reference."""
    params, phases = rows
    each = phases[0] * phases[1]
    some = params[start * each : stop * each], phases
    _scale(acc[start:stop], borders, some, channels, order, activation, out[start:stop])

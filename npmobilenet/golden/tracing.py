"""The steps that a kernel takes, as it takes them: calls of the project's own arithmetic, with arguments and results.

Only the uncompiled reference kernels (the kernel set "python") can be watched: Python tells of each call and return. So
what is shown is what was computed, never a second copy of it.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from types import FrameType
from typing import Any

import numpy as np

import npmobilenet
from npmobilenet.arithmetic.fixedpoint import Requantization
from npmobilenet.golden.nodes import argument_names
from npmobilenet.runtime.binding import Step

_PACKAGE = Path(npmobilenet.__file__).parent
WATCHED = tuple(str(_PACKAGE / place) for place in ("arithmetic", "kernels/reference"))
MOST_CALLS = 5000
PLACES = (
    "stride",
    "pad",
    "padding",
    "dilation",
    "kernel",
    "taps",
    "zero_points",
)  # parameters that the node's description has


@dataclass
class TracedCall:
    """One call: `arguments` are numbers by parameter name (arrays and records are left out), `depth` its nesting."""

    name: str
    arguments: dict[str, Any]
    depth: int
    result: Any = None
    meaning: str = ""


@dataclass
class Trace:
    """The calls in the order in which they were made; `left_out` counts those beyond MOST_CALLS."""

    calls: list[TracedCall] = field(default_factory=list)
    left_out: int = 0


def scalar(value: Any) -> Any:
    """A number as a plain Python one (float32 as the shortest decimal that gives it back), None for anything else."""
    if isinstance(value, np.float32):
        return float(str(value))
    if isinstance(value, np.generic):
        value = value.item()
    return value if isinstance(value, (bool, int, float)) else None


@contextmanager
def watch(argument: float | None = None) -> Iterator[Trace]:
    """A block whose calls of the watched files' functions are written down.

    With an `argument`, only calls whose first argument it is, and what these call.
    """
    trace = Trace()
    stack: list[TracedCall | None] = []

    def listener(frame: FrameType, event: str, result: Any) -> None:
        if event not in ("call", "return") or not frame.f_code.co_filename.startswith(WATCHED):
            return
        if event == "call":
            code = frame.f_code
            names = code.co_varnames[: code.co_argcount]
            arguments = {name: scalar(frame.f_locals[name]) for name in names}
            wanted = argument is None or bool(stack) or next(iter(arguments.values()), None) == argument
            inside_another = bool(stack) and stack[-1] is None
            if inside_another or not wanted or len(trace.calls) >= MOST_CALLS:
                trace.left_out += wanted and not inside_another
                stack.append(None)
                return
            document = getattr(frame.f_globals.get(code.co_name), "__doc__", None) or ""
            given = {k: v for k, v in arguments.items() if v is not None}
            call = TracedCall(code.co_name, given, len(stack), meaning=document.partition("\n")[0])
            trace.calls.append(call)
            stack.append(call)
        elif stack:
            ended = stack.pop()
            if ended is not None:
                ended.result = scalar(result)

    before = sys.getprofile()
    sys.setprofile(listener)
    try:
        yield trace
    finally:
        sys.setprofile(before)


def traced(steps: list[Step], copies: int = 1) -> Trace:
    """Run the kernel calls (of the set "python") and return what they called; the kernels themselves are left out.

    Where all elements are `copies` of one, the calls for the first.
    """
    with np.errstate(all="ignore"), watch() as trace:  # as compiled kernels do
        for step in steps:
            step.kernel(*step.args)
    kernels = {step.kernel.__name__ for step in steps}
    trace.calls = [call for call in trace.calls if not (call.depth == 0 and call.name in kernels)]
    for call in trace.calls:
        call.depth -= 1
    groups = subtrees(trace.calls)
    if len(groups) % copies == 0:
        trace.calls = [call for group in groups[: len(groups) // copies] for call in group]
    return trace


def subtrees(calls: list[TracedCall]) -> list[list[TracedCall]]:
    """The calls of depth 0, each with those inside it."""
    groups: list[list[TracedCall]] = []
    for call in calls:
        if call.depth == 0 or not groups:
            groups.append([])
        groups[-1].append(call)
    return groups


def parameters(step: Step) -> dict[str, Any]:
    """The numbers that a kernel call is given beside its arrays: scalars, tuples of them, fields of records.

    An array of one number for each channel is given by its first; what says where the kernel reads is left out.
    """
    found: dict[str, Any] = {}
    for name, value in zip(argument_names(step), step.args, strict=True):
        if name not in PLACES:
            _collect(found, name, value)
    return found


def _collect(found: dict[str, Any], name: str, value: Any) -> None:
    if isinstance(value, tuple) and hasattr(value, "_fields"):
        for key, part in zip(value._fields, value, strict=True):
            row = isinstance(part, np.ndarray) and part.ndim == 1 and part.size > 0
            by_channel = row and (part.size <= 2 or isinstance(value, Requantization))  # and not a table
            _collect(found, key, part[0] if by_channel else part)
    elif isinstance(value, tuple):
        parts = [scalar(v) for v in value]
        if all(p is not None for p in parts):
            found[name] = parts
    elif scalar(value) is not None:
        found[name] = scalar(value)

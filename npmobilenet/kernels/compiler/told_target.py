"""Whether LLVM takes the CPU and the features that Numba is told to compile for.

LLVM complains of names that it doesn't know on standard error, once for each function, and goes on without them; at a
CPU of 32 bits, or one without floating point, it ends the process. So a forked child compiles a function first, and
what LLVM says there is the error. Sources: llvm/llvm-project, llvm/lib/MC/MCSubtargetInfo.cpp (getFeatures,
getFeatureBits) and llvm/lib/Target/X86/X86Subtarget.cpp (initSubtargetFeatures), LLVM 20.
"""

from __future__ import annotations

import contextlib
import functools
import os
import signal
import warnings
from typing import NoReturn

import llvmlite.binding as llvm

from npmobilenet.errors import PlanError

LONGEST_S = 20  # seconds of the child, which takes some milliseconds
_MOST_BYTES = 4096  # of what LLVM says; a list of all CPUs has more
_FUNCTION = "define double @f(i64 %x) {\n%y = sitofp i64 %x to double\n%z = fmul double %y, %y\nret double %z\n}"


def check(name: str | None, features: str | None) -> None:
    """Raises `PlanError` where LLVM doesn't know the CPU or a feature, or can't compile for them; None: not told."""
    told = {"NUMBA_CPU_NAME": name, "NUMBA_CPU_FEATURES": features}
    settings = " ".join(f"{key}={value}" for key, value in told.items() if value is not None)
    if settings and (why := _complaint(name or "", features or "")):
        raise PlanError(
            f"{settings}: LLVM can't compile for that: {why}. Unset it, or use LLVM's names of CPUs, and of features "
            f"with + or - in front and commas between; this machine's CPU is called {llvm.get_host_cpu_name()}"
        )


def unknown_flags(text: str) -> list[str]:
    """A sentence for each word of NUMBA_LLVM_REFPRUNE_FLAGS that names no pass: Numba warns of it at each function.

    Source: numba, numba/core/codegen.py (_parse_refprune_flags), 0.62.
    """
    words = [word.strip() for word in text.split(",")]
    return [f"'{w}' is no pass of LLVM_REFPRUNE_FLAGS" for w in words if not hasattr(llvm.RefPruneSubpasses, w.upper())]


@functools.cache
def _complaint(name: str, features: str) -> str:
    """What LLVM has against this CPU with these features, in one line; "" for nothing, or where nothing can be tried.

    A feature without a sign counts as one turned off, without a word of LLVM's.
    """
    unsigned = [item for item in features.split(",") if item and item[0] not in "+-"]
    if unsigned:
        return f"the feature '{unsigned[0]}' begins with neither + nor -"
    if not hasattr(os, "fork"):  # Windows
        return ""
    reading, writing = os.pipe()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of a fork beside other threads: the child calls nothing but LLVM
        child = os.fork()
    if child == 0:
        _compile(name, features, writing)
    os.close(writing)
    with os.fdopen(reading, "rb") as file:
        said = file.read(_MOST_BYTES).decode("utf-8", "replace").strip()
    _, status = os.waitpid(child, 0)
    line = said.partition("\n")[0].partition(" (ignoring")[0].rpartition(": ")[2].rstrip("!.:")
    return line or ("it ends without a word" if status else "")


def _compile(name: str, features: str, out: int) -> NoReturn:
    """The child: LLVM's words go to `out`."""
    status = 1
    try:
        import resource

        resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
        for number in (signal.SIGABRT, signal.SIGALRM):
            signal.signal(number, signal.SIG_DFL)
        signal.alarm(LONGEST_S)
        os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
        os.dup2(out, 2)
        llvm.initialize_native_target()
        llvm.initialize_native_asmprinter()
        target = llvm.Target.from_triple(llvm.get_process_triple())
        target.create_target_machine(cpu=name, features=features).emit_object(llvm.parse_assembly(_FUNCTION))
        status = 0
    except BaseException as error:  # nothing may come back from here
        with contextlib.suppress(OSError):
            os.write(out, f"{type(error).__name__}: {error}".encode(errors="backslashreplace"))
    finally:
        os._exit(status)

"""The instruction set: what Numba compiles for, what a machine has, what is asked for; and the cache's key."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import numba
import pytest

from npmobilenet.errors import PlanError
from npmobilenet.kernels.compiler import cache, cpu, numba_private, told_target

ROOT = Path(__file__).parents[2]
WIDE = "+avx,+avx2,+avx512bw,+avx512dq,+avx512f,+avx512vbmi,+avx512vl,+avx512vnni,+f16c,+fma,+sse2"
ARM_HOST = "+crc,+fp-armv8,+lse,+neon"  # as LLVM tells it on Linux


def best_of(text: str) -> str:
    return cpu.all_of(dict.fromkeys(cpu.features_of(text), True), arm=False)[-1]


def test_features_of_a_string() -> None:
    """As LLVM reads it: from left to right, and what is taken away takes with it what rests on it."""
    assert cpu.features_of("") == frozenset()
    assert cpu.features_of("+avx2, -bmi,+fma") == {"avx2", "fma"}
    assert cpu.features_of("-avx2,+avx2") == {"avx2"}
    assert best_of(WIDE) == "avx512vnni"
    assert best_of("+avx2,+fma") == "avx2"
    assert best_of("+avx2,+fma,+avxvnni") == best_of(WIDE + ",+avxvnni,-avx512f") == "avxvnni"
    assert best_of("+avxvnni,+fma") == best_of("+avx2,+fma,+avxvnni,-avx2") == "generic"
    assert best_of(WIDE + ",+avxvnni") == "avx512vnni"
    assert cpu.all_of(dict.fromkeys(cpu.features_of(WIDE), True), arm=False) == (
        "generic", "avx2", "avx512", "avx512vnni",
    )  # fmt: skip
    assert best_of(WIDE + ",-avx512vnni,-sse4a") == "avx512"
    for gone in ("avx512vl", "avx512f", "f16c", "evex512"):
        assert best_of(f"{WIDE},-{gone}") == "avx2", gone
    for gone in ("avx2", "fma", "avx", "sse2", "sse4.2"):
        assert best_of(f"{WIDE},-{gone}") == "generic", gone
    assert not cpu.features_of(f"{WIDE},-avx512bw") & {"avx512bw", "avx512vbmi"}
    # NUMBA_ENABLE_AVX=0: what begins with avx is off, fma is not
    assert best_of("-avx,-avx2,-avx512f,-avx512vl,+fma,+f16c,+vaes") == "generic"


def compiles_for(
    monkeypatch: pytest.MonkeyPatch, features: str, arm: bool = False, hwcap: int = 0, hwcap2: int = 0
) -> None:
    """This process is on a machine whose CPU LLVM doesn't know by name."""
    monkeypatch.setattr(numba_private, "compile_target", lambda: ("", "unknown", features))
    monkeypatch.setattr(told_target, "check", lambda name, features: None)  # LLVM knows this machine's kind alone
    monkeypatch.setattr(cpu, "ARM", arm)
    monkeypatch.setattr(cpu, "ISAS", tuple(cpu.ON_ARM if arm else cpu.ON_X86))
    monkeypatch.setattr(cpu, "auxiliary_value", lambda kind: {16: hwcap, 26: hwcap2}.get(kind, 0))
    monkeypatch.setattr(sys, "platform", "linux")
    monkeypatch.delenv("NPMOBILENET_ISA", raising=False)


def isa() -> str:
    return cpu.isa.__wrapped__()


def test_dot_products_of_arm(monkeypatch: pytest.MonkeyPatch) -> None:
    """LLVM leaves them out of the host's features on Linux; the auxiliary vector has them."""
    compiles_for(monkeypatch, ARM_HOST, arm=True, hwcap=1 << 20 | 0xFF)
    assert isa() == "dotprod"
    monkeypatch.setenv("NPMOBILENET_ISA", "neon")
    assert isa() == "neon"
    monkeypatch.setenv("NPMOBILENET_ISA", "dotprod")
    assert isa() == "dotprod"
    monkeypatch.delenv("NPMOBILENET_ISA")
    monkeypatch.setattr(numba.config, "CPU_FEATURES", ARM_HOST)  # told what there is, Numba doesn't look
    assert isa() == "neon"
    monkeypatch.undo()
    compiles_for(monkeypatch, ARM_HOST + ",-dotprod", arm=True, hwcap=1 << 20)
    assert isa() == "neon"
    compiles_for(monkeypatch, ARM_HOST + ",+dotprod", arm=True)
    assert isa() == "dotprod"
    compiles_for(monkeypatch, ARM_HOST, arm=True, hwcap=(1 << 20) - 1)
    assert isa() == "neon"
    monkeypatch.setattr(cpu, "auxiliary_value", lambda kind: 1 << 20)
    monkeypatch.setattr(sys, "platform", "darwin")  # the same bits mean something else there, if anything
    assert isa() == "neon"


def test_matrix_products_of_arm(monkeypatch: pytest.MonkeyPatch) -> None:
    """Told by the second word of the auxiliary vector; no use without dot products, which depthwise layers take."""
    dots, products = 1 << 20, 1 << 13
    compiles_for(monkeypatch, ARM_HOST, arm=True, hwcap=dots | 0xFF, hwcap2=products | 0xFF)
    assert isa() == "i8mm"
    assert cpu.isas_here() == ("generic", "neon", "dotprod", "i8mm")
    for lesser in ("dotprod", "neon", "generic", "i8mm"):
        monkeypatch.setenv("NPMOBILENET_ISA", lesser)
        assert isa() == lesser
    monkeypatch.delenv("NPMOBILENET_ISA")
    monkeypatch.setattr(numba.config, "CPU_FEATURES", ARM_HOST)
    assert isa() == "neon"
    monkeypatch.undo()
    for features, hwcap, hwcap2, wanted in (
        (ARM_HOST, dots, products - 1, "dotprod"),
        (ARM_HOST, dots | products, 0, "dotprod"),  # the same bit of the first word is another feature's
        (ARM_HOST, 0, products, "neon"),
        (ARM_HOST + ",+dotprod", 0, products, "i8mm"),
        (ARM_HOST + ",+dotprod,-i8mm", 0, products, "dotprod"),
        (ARM_HOST + ",+i8mm,+dotprod", 0, 0, "i8mm"),
        (ARM_HOST + ",+i8mm,+dotprod,-neon", 0, 0, "neon"),
    ):
        compiles_for(monkeypatch, features, arm=True, hwcap=hwcap, hwcap2=hwcap2)
        assert isa() == wanted, (features, hwcap, hwcap2)


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="this platform has no auxiliary vector")
def test_auxiliary_values() -> None:
    page_size = 6  # AT_PAGESZ
    assert cpu.auxiliary_value(page_size) == os.sysconf("SC_PAGESIZE")
    assert cpu.auxiliary_value(10**6) == 0


@pytest.mark.parametrize(("arm", "features", "asked", "words"), [
    (False, "+avx2,+fma", "avx512", "lacks these instructions: set one of generic, avx2, or none"),
    (False, "", "avx2", "set one of generic, or none"),
    (False, "+avx2,+fma", "dotprod", "expected one of generic, avx2, avxvnni, avx512, avx512vnni"),
    (False, WIDE, "avxvnni", "lacks these instructions: set one of generic, avx2, avx512, avx512vnni, or none"),
    (True, ARM_HOST, "dotprod", "lacks these instructions: set one of generic, neon, or none"),
    (True, ARM_HOST, "i8mm", "lacks these instructions: set one of generic, neon, or none"),
    (True, ARM_HOST + ",+dotprod", "i8mm", "lacks these instructions: set one of generic, neon, dotprod, or none"),
    (True, ARM_HOST, "avx2", "expected one of generic, neon, dotprod, i8mm"),
    (True, ARM_HOST, "fast", "expected one of generic, neon, dotprod"),
])  # fmt: skip
def test_what_a_machine_lacks_is_said(
    arm: bool, features: str, asked: str, words: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    compiles_for(monkeypatch, features, arm)
    monkeypatch.setenv("NPMOBILENET_ISA", asked)
    with pytest.raises(PlanError, match=f"NPMOBILENET_ISA={asked}: .*{words}"):
        isa()


def test_settings_of_numba_have_caches_of_their_own(monkeypatch: pytest.MonkeyPatch) -> None:
    key = cache.cache_key.__wrapped__
    found = {key()}
    for name, value in {"OPT": 1, "ENABLE_AVX": 0, "CPU_NAME": "haswell", "CPU_FEATURES": "+avx2", "LOOP_VECTORIZE": 0,
                        "SLP_VECTORIZE": 1, "BOUNDSCHECK": 1, "DEBUGINFO_DEFAULT": 1}.items():  # fmt: skip
        with monkeypatch.context() as patch:
            patch.setattr(numba.config, name, value)
            found.add(key())
    assert len(found) == 9
    monkeypatch.setattr(numba_private, "compile_target", lambda: ("", "another", ""))
    assert key() not in found
    assert all(hasattr(numba.config, name) for name in ("OPT", "ENABLE_AVX", "LOOP_VECTORIZE", "SLP_VECTORIZE"))


PROGRAM = """
import numpy as np
from npmobilenet.arithmetic.fixedpoint import everywhere
from npmobilenet.kernels import kernel_set
from npmobilenet.kernels.compiler.cpu import isa
fast = kernel_set("fast")
x, out = np.arange(-128, 128, dtype=np.int8).reshape(1, -1), np.zeros((1, 256), np.int8)
tables = np.arange(512).astype(np.int8).reshape(2, 256)
fast.lookup_q(x, tables, everywhere(0), out)
ones, product = np.ones((3, 8), np.float32), np.zeros((3, 8), np.float32)
fast.pointwise_conv2d_f32(ones, fast.pack("pointwise_conv2d_f32", np.eye(8, dtype=np.float32)), ones[0], 0, product)
print(isa(), (out == x).all(), (product == 2).all())
"""
HASWELL = {"NUMBA_CPU_NAME": "haswell", "NUMBA_CPU_FEATURES": "+avx2,+fma"}


@pytest.mark.skipif(cpu.ARM or cpu.isa() == "generic", reason="this CPU has nothing to turn off")
@pytest.mark.parametrize(("settings", "wanted"), [({"NUMBA_ENABLE_AVX": "0"}, "generic"), (HASWELL, "avx2")])
def test_settings_of_numba_that_turn_instructions_off(settings: dict[str, str], wanted: str, tmp_path: Path) -> None:
    """Instructions that LLVM doesn't know of for the CPU that it is told would end the process."""
    env = {**os.environ, "NPMOBILENET_CACHE": str(tmp_path), "NPMOBILENET_QUIET": "1", **settings}
    env.pop("NPMOBILENET_ISA", None)
    done = subprocess.run([sys.executable, "-c", PROGRAM], env=env, capture_output=True, text=True, check=False)
    assert done.stdout.split() == [wanted, "True", "True"], done.stderr[-2000:]


@pytest.mark.parametrize("told", ["NUMBA_NUM_THREADS=0", "NUMBA_NUM_THREADS=x", "NUMBA_OPT=x", "NUMBA_CPU_NAME=x",
                                  "NUMBA_LLVM_REFPRUNE_FLAGS=x", ""])  # fmt: skip
def test_settings_that_numba_cannot_take(told: str, tmp_path: Path) -> None:
    """Numba fails at some in passing, and warns of others with a traceback."""
    env = {**os.environ, "NPMOBILENET_CACHE": str(tmp_path), **dict([told.split("=")] if told else [])}
    if not told:
        pytest.importorskip("yaml", reason="Numba reads its file with PyYAML")
        (tmp_path / ".numba_config.yaml").write_bytes(b"\0{")
        env = {key: value for key, value in env.items() if not key.startswith("NUMBA")}
    env["PYTHONPATH"] = os.pathsep.join([str(ROOT), env.get("PYTHONPATH", "")])
    command = [sys.executable, "-m", "npmobilenet", "classify"]
    done = subprocess.run(command, env=env, cwd=tmp_path, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout) == (2, "")
    start = (
        f"{told}: LLVM can't" if "CPU" in told else f"Numba can't take its settings ({told or '.numba_config.yaml'}): "
    )
    assert done.stderr.startswith(f"error: {start}"), done.stderr
    assert done.stderr.count("\n") == 1


@pytest.mark.skipif(not hasattr(os, "fork"), reason="this platform has no fork")
@pytest.mark.parametrize(("name", "features", "why"), [
    ("nonsense", None, "'nonsense' is not a recognized processor"),
    ("", "+nonsense", "'\\+nonsense' is not a recognized feature"),
    (None, "avx2,+fma", "'avx2' begins with neither \\+ nor -"),
    (None, "+fma, +avx2", "' \\+avx2' begins with neither"),
    ("help", "", "Available CPUs"),
    ("\udcff", None, "surrogates"),
    *((("i686", None, "64-bit code requested"), (None, "-sse2", "SSE2 disabled")) if not cpu.ARM else ()),
])  # fmt: skip
def test_what_llvm_cannot_compile_for(
    name: str | None, features: str | None, why: str, capfd: pytest.CaptureFixture[str]
) -> None:
    """LLVM prints such names once for each function, and some end the process: it is asked in a child."""
    with pytest.raises(PlanError, match=f"NUMBA_CPU.*: LLVM can't compile for that: .*{why}.* Unset it, or use LLVM's"):
        told_target.check(name, features)
    assert capfd.readouterr() == ("", "")
    told_target.check(None, None)
    told_target.check("generic", "")
    told_target.check(None, cpu.compiler().target[2])

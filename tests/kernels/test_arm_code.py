"""The code for 64-bit Arm: the generated tiles compiled for it, on any machine, and its forms' sums by plain products.

No test here runs Arm code. What can be said without an Arm machine is: LLVM makes the instructions that are meant, the
accumulators stay in registers, nothing of x86 is left; and packing, zero points and row sums of the dot products fit
together, as all around the one instruction runs anywhere (gemm_s8._multiply_add).
"""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import llvmlite.binding as llvm
import pytest
from llvmlite import ir
from numba import types
from numba.core.registry import cpu_target

from npmobilenet.kernels.compiler import cpu, object_code
from npmobilenet.kernels.compiler.c_entry import _value
from npmobilenet.kernels.compiler.cpu import ISAS, LANES, REGISTERS, all_of, isa
from npmobilenet.kernels.compiler.work_sharing import WORD
from npmobilenet.kernels.vectorcode.depthwise_f32 import (
    Framed,
    Pixels,
    Taps,
    depthwise_f32_image_kernel,
    depthwise_f32_kernel,
)
from npmobilenet.kernels.vectorcode.depthwise_s8 import (
    Block,
    Filters,
    OutputRows,
    RowGroup,
    Words,
    depthwise_s8_kernel,
    fill_kernel,
    interleave_kernel,
    interleave_one_kernel,
)
from npmobilenet.kernels.vectorcode.gemm_f32 import gemm_f32_kernel
from npmobilenet.kernels.vectorcode.gemm_s8 import ON_ARM, gemm_s8_kernel, gemm_s8_linear_kernel
from npmobilenet.kernels.vectorcode.generated import Cells, Lhs, Panel, RowSums
from npmobilenet.kernels.vectorcode.lhs_row_sums import row_sums_kernel
from npmobilenet.kernels.vectorcode.linear_requant import LinearRequant
from npmobilenet.kernels.vectorcode.requant_epilogue import requantize_kernel
from npmobilenet.kernels.vectorcode.requant_rules import LINE_FORMS

TRIPLE = "aarch64-unknown-linux-gnu"
ELF_AARCH64 = 183  # e_machine
CPUS = {
    "i8mm": ("neoverse-v1", "+neon,+dotprod,+i8mm,+fullfp16"), "dotprod": ("neoverse-n1", "+neon,+dotprod,+fullfp16"),
    "neon": ("cortex-a72", "+neon"),
}  # fmt: skip
UNKNOWN = {"unknown": ("generic", "+neon,+fp-armv8")}
MR, LANE = 12, 4
INT = types.int64
FLOATS, WORDS, ADDRESSES = (types.Array(t, 1, "C") for t in (types.float32, types.int32, types.int64))
SCALES = types.Array(types.float64, 1, "C")
BYTES = {name: types.Array(getattr(types, name), 1, "C") for name in ("uint8", "int8", "int16", "int32")}


def of(tuple_type: Any, **arrays: Any) -> Any:
    """Numba's type of a named tuple: of these arrays, all else integers."""
    return types.NamedTuple([arrays.get(name, INT) for name in tuple_type._fields], tuple_type)


PANEL = of(Panel, weights=FLOATS, bias=FLOATS)
REQUANT = of(
    LinearRequant, multiplier=WORDS, shift=WORDS, scale=SCALES, slope=FLOATS, offset=FLOATS, below=FLOATS,
    exceptions=WORDS, one_offset=WORDS, two_offsets=WORDS, patched=WORDS
)  # fmt: skip

Tile = tuple[Any, tuple[Any, ...]]  # an intrinsic and the types of its arguments


def dot(rows: int, vectors: int, kind: str, dtype: str, width: int | None = None) -> Tile:
    """A tile of dot products; weights are as the packing gives them."""
    panel = of(Panel, weights=BYTES["int8" if kind in ON_ARM else "int16"], bias=WORDS)
    return gemm_s8_kernel(rows, vectors, LANE, kind, width), (
        of(Lhs, data=BYTES[dtype]), panel, of(RowSums, data=WORDS), WORDS
    )  # fmt: skip


def linear_dot(rows: int, vectors: int, kind: str, dtype: str, out: str) -> Tile:
    """The same, to bytes by lines."""
    arguments = dot(rows, vectors, kind, dtype)[1][:3]
    return gemm_s8_linear_kernel(rows, vectors, LANE, kind, 2 * LANE), (
        *arguments, REQUANT, INT, of(Cells, data=BYTES[out]), INT, INT,
    )  # fmt: skip


def row_sums(dtype: str) -> Tile:
    return row_sums_kernel("dotprod", LANE), (of(Lhs, data=BYTES[dtype]), INT, INT, WORDS)


def matrix(rows: int, vectors: tuple[int, ...]) -> Tile:
    lhs, out = of(Lhs, data=FLOATS), of(Cells, data=FLOATS)
    return gemm_f32_kernel(rows, vectors), (lhs, PANEL, INT, FLOATS, INT, out, INT)


def filters(pixels: int) -> Tile:
    image, taps = of(Pixels, data=FLOATS), of(Taps, weights=FLOATS, bias=FLOATS)
    return depthwise_f32_kernel(pixels, LANE), (image, taps, INT, of(Cells, data=FLOATS), INT, INT)


def filtered_image(taps: int, stride: int) -> Tile:
    image, out = of(Framed, data=FLOATS), of(Cells, data=FLOATS)
    return depthwise_f32_image_kernel(2, 7, LANE, taps, stride), (image, FLOATS, FLOATS, INT, out, INT, INT)


def columns(pixels: int, rows: int, kind: str, window: tuple[int, int] | None, out: str | None = None) -> Tile:
    """Sums, or bytes of type `out` by lines."""
    w = BYTES["int8" if kind == "dotprod" else "int16"]
    packed = of(Filters, weights=w, parts=ADDRESSES, vectors=ADDRESSES, bias=WORDS)
    target = of(OutputRows, data=BYTES[out] if out else WORDS)
    return depthwise_s8_kernel(pixels, rows, LANE, kind, window, bool(out)), (
        of(Words, data=WORDS), packed, of(Block), INT, INT, target, *((REQUANT, INT) if out else ()),
    )  # fmt: skip


def requantize(dtype: str) -> Tile:
    acc, out = of(Cells, data=WORDS), of(Cells, data=BYTES[dtype])
    return requantize_kernel(LANE), (acc, INT, INT, INT, REQUANT, INT, INT, out)


def others(kind: str) -> list[Tile]:
    """What else the integer kernels are made of."""
    made: list[Tile] = [(fill_kernel(LANE), (of(Cells, data=WORDS), INT, INT, INT, INT))]
    for x in (BYTES["uint8"], BYTES["int8"]):
        starts = (x, of(RowGroup, rows=ADDRESSES), INT, INT, INT, of(Cells, data=WORDS))
        made += [(interleave_kernel(width, LANE, kind), starts) for width in (16, 8, 4)]
        made.append((interleave_one_kernel(LANE, kind), (*starts, INT, INT)))
        if kind == "dotprod":
            made.append(row_sums(str(x.dtype)))
    return made


@pytest.fixture(scope="module")
def target() -> Any:
    """LLVM's code generator for Arm, which llvmlite's wheels have on every machine."""
    llvm.initialize_all_targets()
    llvm.initialize_all_asmprinters()
    try:
        return llvm.Target.from_triple(TRIPLE)
    except RuntimeError as error:
        pytest.skip(f"this llvmlite has no AArch64 target: {error}")


def embedded(module: Any, name: str, kind: Any, body: object_code.Body) -> Any:
    """As object_code.declare, with the tile's code in the module itself."""
    name = re.sub(r"\W+", "_", f"{name}_{kind}")
    found = module.globals.get(name)
    if found is None:
        found = object_code.define(module, name, kind, body)
        found.linkage = "internal"
    return found


@pytest.fixture(autouse=True)
def whole_modules(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(object_code, "declare", embedded)


def generated(tiles: list[Tile]) -> str:
    """A module for Arm with a function for each tile, void (int64 words), see c_entry.py for the words."""
    context, module = cpu_target.target_context, ir.Module("arm")
    module.triple = TRIPLE
    for number, (tile, kinds) in enumerate(tiles):
        function = ir.Function(module, ir.FunctionType(ir.VoidType(), [WORD]), f"entry_{number}")
        builder = ir.IRBuilder(function.append_basic_block())
        words, count = builder.inttoptr(function.args[0], WORD.as_pointer()), iter(range(1000))

        def take(builder: Any = builder, words: Any = words, count: Any = count) -> Any:
            return builder.load(builder.gep(words, [ir.Constant(WORD, next(count))]))

        signature, codegen = tile.define(None, *kinds)
        codegen(context, builder, signature, [_value(context, builder, kind, take) for kind in kinds])
        builder.ret_void()
    return str(module)


def compiled(target: Any, tiles: list[Tile], name: str = "dotprod") -> tuple[Any, Any]:
    """The module, verified and optimized as Numba does it, and the target machine."""
    cpu, features = (CPUS | UNKNOWN)[name]
    text = generated(tiles)
    assert "llvm.x86" not in text
    machine = target.create_target_machine(cpu=cpu, features=features, opt=3, reloc="pic", codemodel="default")
    module = llvm.parse_assembly(text)
    module.data_layout = str(machine.target_data)
    module.verify()
    options = llvm.create_pipeline_tuning_options(speed_level=3)
    options.loop_vectorization = options.slp_vectorization = True
    builder = llvm.create_pass_builder(machine, options)
    builder.getModulePassManager().run(module, builder)
    module.verify()
    return module, machine


def assembly(target: Any, tile: Tile, name: str = "dotprod") -> str:
    module, machine = compiled(target, [tile], name)
    return str(machine.emit_assembly(module))


def inner_loops(text: str) -> list[list[str]]:
    """Instructions of every basic block that ends with a branch to its own start."""
    loops = []
    for label, body in re.findall(r"^(\.LBB\w+):(.*?)(?=^\.LBB|^\w|\Z)", text, re.MULTILINE | re.DOTALL):
        lines = [line.strip() for line in body.splitlines() if re.match(r"\t[a-z]", line)]
        ends = [
            i for i, line in enumerate(lines) if re.fullmatch(rf"(b\.?\w*|cbn?z\s+\w+,)\s+{re.escape(label)}", line)
        ]
        if ends:
            loops.append(lines[: ends[-1] + 1])
    return loops


def the_loop(text: str, instruction: str) -> list[str]:
    """The one inner loop with this instruction."""
    [found] = [loop for loop in inner_loops(text) if any(line.split()[0] == instruction for line in loop)]
    return found


def count(lines: list[str], instruction: str) -> int:
    return sum(line.split()[0] == instruction for line in lines)


# Those of gemm_s8.py
DOTS = [(MR, 2, None), (3, 2, None), (4, 2, None), (1, 2, None), (MR, 1, 2 * LANE), (1, 1, 2 * LANE)]
OF_BYTES = [(kind, dtype, ON_ARM[kind][dtype == "int8"]) for kind in ON_ARM for dtype in ("uint8", "int8")]


@pytest.mark.parametrize(("kind", "dtype", "instruction"), OF_BYTES)
@pytest.mark.parametrize(("rows", "vectors", "width"), DOTS)
def test_dot_products(
    target: Any, rows: int, vectors: int, width: int | None, kind: str, dtype: str, instruction: str
) -> None:
    """One instruction for each accumulator and step; accumulators, weights and values stay in registers."""
    text = assembly(target, dot(rows, vectors, kind, dtype, width), kind)
    loop = the_loop(text, instruction)
    assert count(loop, instruction) == (rows + rows % 2 if kind == "i8mm" else rows) * vectors
    assert not [line for line in loop if "sp" in line or line.startswith("mov\tv")], loop
    assert [name for _, _, name in OF_BYTES if name in text] == [instruction]


def test_products_of_eight_bytes_take_half_the_instructions(target: Any) -> None:
    """i8mm's loop does twice the products of dotprod's, in as many multiplications and about as many instructions."""
    loops = {kind: the_loop(assembly(target, dot(MR, 2, kind, dtype), kind), name) for kind, dtype, name in OF_BYTES}
    assert len(loops["i8mm"]) < 0.6 * 2 * len(loops["dotprod"]), loops  # 47 and 41


def test_dot_products_for_a_cpu_that_llvm_does_not_know(target: Any) -> None:
    """Its features lack them, so functions that use them say that they may; else LLVM would end the process."""
    for number, tile in enumerate((dot(MR, 2, "dotprod", "int8"), row_sums("int8"), columns(4, 2, "dotprod", None))):
        assert generated([tile]).count('"target-features"="+dotprod"') == 1, number
        assert "sdot" in assembly(target, tile, "unknown")
    assert generated([dot(MR, 2, "i8mm", "int8")]).count('"target-features"="+i8mm"') == 1
    assert "smmla" in assembly(target, dot(MR, 2, "i8mm", "int8"), "unknown")


def check_lines(text: str, accumulators: int) -> None:
    """Lines of every kind: one multiply-add and one conversion for each vector, no call.

    The one or two with which two-offset and patched ones begin alike, LLVM may emit once.
    """
    for instruction in ("fmla", "fcvtns"):
        found = len(re.findall(rf"\t{instruction}\tv\d+\.4s", text))
        assert len(LINE_FORMS) * accumulators - 2 <= found <= len(LINE_FORMS) * accumulators
    assert not re.search(r"\tfmadd\t|\t(fcvt\w+|scvtf|frint\w)\t[swdx]\d", text)  # lane by lane
    assert not re.search(r"\tst1\t\{ v\d+\.b", text)
    check_calls(text)


def check_calls(text: str) -> None:
    """Of nothing but what is in the text: no fmaf, no rintf."""
    called = set(re.findall(r"\tbl\t(\w+)", text))
    assert not [name for name in called if not re.search(rf"^{name}:", text, re.MULTILINE)], called


@pytest.mark.parametrize("out", ["uint8", "int8"])
@pytest.mark.parametrize(("name", "kind", "dtype", "instruction"), [
    *((kind, kind, dtype, instruction) for kind, dtype, instruction in OF_BYTES),
    ("neon", "generic", "int16", "smlal"),
])  # fmt: skip
def test_tiles_that_end_by_lines(target: Any, name: str, kind: str, dtype: str, instruction: str, out: str) -> None:
    """The products as without lines, accumulators in registers; then the lines, by vectors."""
    each = 2 if instruction == "smlal" else 1
    for vectors in (2, 1):
        text = assembly(target, linear_dot(MR, vectors, kind, dtype, out), name)
        loop = the_loop(text, instruction)
        assert count(loop, instruction) == MR * vectors * each
        assert not [line for line in loop if "sp" in line or line.startswith("mov\tv")], loop
        check_lines(text, MR * vectors)
    if kind == "i8mm":  # its depthwise tiles are those of dotprod
        return
    for pixels, rows, window in ((4, 2, (3, 1)), (8, 1, (3, 2)), (4, 4, (5, 1)), (8, 2, (5, 2))):
        text = assembly(target, columns(pixels, rows, kind, window, out), name)
        assert len(re.findall(rf"\t{'sdot' if kind == 'dotprod' else 'smlal'}2?\t", text)) == (
            pixels * rows * window[0] * each
        )
        check_lines(text, pixels * rows)


@pytest.mark.parametrize(("dtype", "instruction"), [("uint8", "udot"), ("int8", "sdot")])
def test_row_sums(target: Any, dtype: str, instruction: str) -> None:
    """A vector of each row at a time; what is left of a row by pieces of 8, 4, 2 and 1 bytes, not byte by byte."""
    text = assembly(target, row_sums(dtype))
    loop = the_loop(text, instruction)
    assert count(loop, instruction) == LANE
    assert not [line for line in loop if "sp" in line], loop
    assert len(re.findall(rf"\t{instruction}\t", text)) == 5 * LANE
    assert not re.search(r"\tld1\t\{ v\d+\.b", text)
    check_calls(text)


@pytest.mark.parametrize("rows", [MR, 3, 1])
def test_products_of_int16(target: Any, rows: int) -> None:
    """Without dot products: two multiply-adds of half a vector for each accumulator and step of two."""
    loop = the_loop(assembly(target, dot(rows, 2, "generic", "int16"), "neon"), "smlal")
    assert count(loop, "smlal") == 4 * rows
    assert count(loop, "shrn") == 0  # a row's int16 are taken by lane, not widened
    assert not [line for line in loop if "sp" in line], loop


@pytest.mark.parametrize("name", CPUS)
@pytest.mark.parametrize(("rows", "vectors"), [(MR, (4, 4)), (4, (4, 4)), (1, (4, 4)), (MR, (4,)), (MR, (2,))])
def test_float_chains(target: Any, rows: int, vectors: tuple[int, ...], name: str) -> None:
    """One fused multiply-add for each accumulator and term, none of them a call of fmaf.

    (Left out: three quarters of a panel, where the code scheduled for cortex-a72 spills some, neoverse-n1's doesn't.)
    """
    text = assembly(target, matrix(rows, vectors), name)
    loop = the_loop(text, "fmla")
    assert count(loop, "fmla") == rows * len(vectors)
    assert [line.split()[1] for line in loop if line.startswith("prfm")] == ["pldl2keep,"]  # of the next panel
    assert not [line for line in loop if "sp" in line], loop
    assert not re.search(r"\bbl\s+fmaf?", text)


@pytest.mark.parametrize("window", [(3, 1), (3, 2), (5, 1), (5, 2), None])
def test_depthwise_filters(target: Any, window: tuple[int, int] | None) -> None:
    """In float twice the multiply-adds of a group of outputs, inside and at the border; in integers once."""
    taps = window[0] if window else 1
    text = assembly(target, filtered_image(*window) if window else filters(4))
    wanted = 2 * 14 * taps * taps if window else 4
    assert len(re.findall(r"\tfmla\tv\d+\.4s", text)) == wanted
    check_calls(text)
    for kind, instruction, each in (("dotprod", "sdot", 1), ("generic", "smlal", 2)):
        pixels, rows = (8, 1) if window in (None, (3, 2)) else (4, 2)
        text = assembly(target, columns(pixels, rows, kind, window))
        assert len(re.findall(rf"\t{instruction}2?\t", text)) == pixels * rows * taps * each


@pytest.mark.parametrize("dtype", ["uint8", "int8", "int32"])
def test_requantization(target: Any, dtype: str) -> None:
    """32 x 32 -> 64 bits by vectors, of operands as loaded; rounding by instructions, not by a library."""
    text = assembly(target, requantize(dtype))
    assert not re.search(r"\tshrn\t", text)
    assert re.search(r"\tsm(ull|lal)2?\tv\d+\.2d", text)
    check_calls(text)


@pytest.mark.parametrize("name", CPUS)
def test_all_tiles_make_one_object(target: Any, name: str) -> None:
    """Everything that the kernels of an instruction set are made of, in one module: valid, and compiled to the end."""
    dtypes = ("uint8", "int8") if name in ON_ARM else ("int16",)
    kind = name if name in ON_ARM else "generic"
    tiles = [dot(*form[:2], kind, dtype, form[2]) for form in DOTS for dtype in dtypes]
    tiles += [linear_dot(MR, 2, kind, dtype, "int8") for dtype in dtypes]
    kind = "generic" if kind == "generic" else "dotprod"
    tiles += [columns(8, 1, kind, (3, 2), "uint8")]
    tiles += [columns(4, 2, kind, (3, 1)), columns(8, 1, kind, (3, 2)), columns(8, 1, kind, None), *others(kind)]
    tiles += [matrix(rows, vectors) for rows in (MR, 4, 1) for vectors in ((4, 4), (4, 2), (4,), (2,))]
    tiles += [
        filtered_image(3, 1),
        filters(4),
        filters(1),
        *(requantize(dtype) for dtype in ("uint8", "int8", "int32")),
    ]
    module, machine = compiled(target, tiles, name)
    binary = machine.emit_object(module)
    assert binary[:4] == b"\x7fELF"
    assert int.from_bytes(binary[18:20], "little") == ELF_AARCH64
    undefined = [f.name for f in module.functions if f.is_declaration and not f.name.startswith("llvm.")]
    assert not undefined


def test_avx_vnni_without_avx512(monkeypatch: pytest.MonkeyPatch) -> None:
    """The same for x86: in the form for 16 registers of 256 bits, all accumulators in them."""
    monkeypatch.setattr(sys.modules[__name__], "TRIPLE", "x86_64-unknown-linux-gnu")
    llvm.initialize_all_targets()
    llvm.initialize_all_asmprinters()
    text = generated([(gemm_s8_kernel(6, 2, LANES["avxvnni"], "vnni"), dot(6, 2, "dotprod", "uint8")[1])])
    target = llvm.Target.from_triple("x86_64-unknown-linux-gnu")
    machine = target.create_target_machine(cpu="haswell", features="+avxvnni", opt=3)
    module = llvm.parse_assembly(text)
    builder = llvm.create_pass_builder(machine, llvm.create_pipeline_tuning_options(speed_level=3))
    builder.getModulePassManager().run(module, builder)
    lines = machine.emit_assembly(module).splitlines()
    places = [i for i, line in enumerate(lines) if "vpdpbusd" in line]
    assert len(places) == 12
    assert all("{vex}" in lines[i] for i in places)
    assert not [line for line in lines[places[0] : places[-1]] if "rsp" in line or "zmm" in line]


def test_choice_of_instruction_set() -> None:
    assert all_of({}, arm=True)[-1] == "neon"  # what every 64-bit Arm has
    assert all_of({"neon": True, "dotprod": False}, arm=True)[-1] == "neon"
    assert all_of({"neon": True, "dotprod": True}, arm=True)[-1] == "dotprod"
    assert all_of({"neon": True, "dotprod": True, "i8mm": True}, arm=True) == tuple(cpu.ON_ARM)
    assert all_of({"neon": True, "i8mm": True}, arm=True)[-1] == "neon"  # its depthwise kernels need dot products
    assert all_of({"dotprod": True, "neon": True}, arm=False)[-1] == "generic"
    wide = dict.fromkeys(("avx2", "fma", "avx512f", "avx512vl", "avx512bw", "avx512dq"), True)
    assert [all_of(f, arm=False)[-1] for f in ({"avx2": True}, {"avx2": True, "fma": True}, wide)] == [
        "generic", "avx2", "avx512",
    ]  # fmt: skip
    assert all_of(wide | {"avx512vnni": True}, arm=False)[-1] == "avx512vnni"
    assert isa() in ISAS
    assert set(LANES) == set(REGISTERS) >= {*ISAS, *cpu.ON_ARM}


# The kernels of a process whose `isa` is replaced before they are made.
DIGEST = """
import sys
from npmobilenet.kernels.compiler import cpu
cpu.isa = lambda: sys.argv[1]
sys.path[:0] = sys.argv[3:]
from npmobilenet.kernels.fast import gemm_s8
import test_zoo_layers
print(gemm_s8.KIND, gemm_s8.MR, getattr(test_zoo_layers, sys.argv[2])())
"""


@pytest.mark.equal("uint8, int8 convolutions", "fast, Arm's forms by plain products", "fast, this machine's", "bits")
@pytest.mark.parametrize(("name", "digest"), [
    ("i8mm", "digest_products_q"), ("dotprod", "digest_q"), ("neon", "digest_f32"),
])  # fmt: skip
def test_kernels_of_arm_give_the_same_bits(name: str, digest: str, tmp_path: Path) -> None:
    """Packing, zero points, row sums, rows in place and the tiles' sizes, with multiplications for the instructions."""
    env = {**os.environ, "NPMOBILENET_CACHE": str(tmp_path), "NPMOBILENET_QUIET": "1"}
    command = [sys.executable, "-c", DIGEST, name, digest, *map(str, Path(__file__).parents[:2])]
    done = subprocess.run(command, env=env, capture_output=True, text=True, check=False, timeout=900)
    assert done.returncode == 0, done.stderr
    import test_zoo_layers

    expected = getattr(test_zoo_layers, digest)()
    assert done.stdout.split() == [name if name in ON_ARM else "generic", str(MR), expected]

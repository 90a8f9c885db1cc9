"""Vela as a peer: compiles a .tflite file for an Ethos-U, and interprets the command stream that it gives, in NumPy.

It runs where the package `ethos-u-vela` is installed, which this project doesn't need. What registers mean is read from
Vela 5.2.0 (ethosu/vela/ethos_u55_regs/ethos_u55_regs.py, register_command_stream_generator.py, weight_compressor.py).
What the hardware makes of them no public source spells out; this interpreter takes what Vela's names and comments say
(ethosu/vela/operation.py, RoundingMode: like TensorFlow Lite, towards zero, to nearest with halves up):

- an accumulator times a scale of 32 bits, by 2^shift, under rounding 0 as gemmlowp rounds twice, under 1 towards zero,
  under 2 to nearest, halves up; then the zero point and the clamp, in 64 bits;
- a product of 32-bit tensors knows the shift alone (Vela's comment in its mean: no scaling for int32);
- sums of 8-bit tensors: the operand that is named is shifted left by 20 and scaled, the other by 19; if none is, each
  is multiplied by its own scale, and one rounding follows, half away from zero;
- an average with padding divides by the number of pixels inside, half away from zero.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import ethosu
import numpy as np
from ethosu import mlw_codec, regor
from ethosu.vela import vela
from ethosu.vela.ethos_u55_regs import ethos_u55_regs as regs

Array = np.ndarray[Any, Any]
INI = (Path(next(iter(ethosu.__path__))) / "config_files" / "Arm" / "vela.ini").read_text()
NPUS = {  # accelerator, MACs, and an entry of vela.ini each for system and memory
    "ethos-u55": ("EthosU55", 128, "Ethos_U55_High_End_Embedded", "Shared_Sram"),
    "ethos-u65": ("EthosU65", 256, "Ethos_U65_Embedded", "Sram_Only"),
}
NAMES = {0: {e.value: e.name[4:] for e in regs.cmd0}, 1: {e.value: e.name[4:] for e in regs.cmd1}}
DOUBLE, TRUNCATE, NATURAL = range(3)
MAX, AVERAGE, REDUCE_SUM = range(3)
MUL, ADD, SUB, MIN, MAXIMUM, LRELU, ABS, CLZ, SHR, SHL = range(10)
INT32 = (-(2**31), 2**31 - 1)


def compiled(file: bytes, npu: str = "ethos-u55") -> Any:
    """What Vela's default core makes of a .tflite file: a command stream, constants, and where tensors lie."""
    accelerator, macs, system, memory = NPUS[npu]
    config = f"[architecture]\nmacs={macs}\ncores=1\n[vela]\nsystem_config_name={system}\nmemory_mode_name={memory}\n"
    options = vela.get_compiler_config(
        False, False, False, False, "Performance", 384 * 1024, *(False,) * 7, "raw", *(False,) * 5, "COP1", False, 16,
        "HillClimb", 10.0,
    )  # fmt: skip
    return regor.compile(accelerator, file, "TFLITE", config + INI, options=options, verbose=False)


@dataclass
class Command:
    """An operation, its parameter, and all registers as they stand: name -> (parameter, payload)."""

    name: str
    parameter: int
    registers: dict[str, tuple[int, int]]

    def __getitem__(self, name: str) -> int:
        """The parameter of a register."""
        return self.registers[f"SET_{name}"][0]

    def payload(self, name: str) -> int:
        """Its 32 bits."""
        return self.registers[f"SET_{name}"][1]

    def signed(self, name: str) -> int:
        """The parameter as an int16."""
        value = self[name]
        return value - 65536 if value >= 32768 else value

    def scale(self, name: str = "OFM_SCALE") -> tuple[int, int]:
        """Scale and shift to the right."""
        shift, scale = self.registers[f"SET_{name}"]
        return scale, shift

    @property
    def rounding(self) -> int:
        """The mode of the output's step."""
        return self["OFM_PRECISION"] >> 14


def commands(stream: Any) -> list[Command]:
    """The operations of a command stream, behind the driver's header."""
    words = np.frombuffer(bytes(stream), np.uint32).tolist()
    at = 1  # behind "COP1"
    while words[at] & 0xFF != 2:  # the tag of the stream itself; 1: configuration, 5: filling
        at += 3 if words[at] & 0xFF == 1 else 1
    at, registers, found = at + 1, {}, []
    while at < len(words):
        word, long = words[at], words[at] >> 14 & 3
        name = NAMES[long].get(word & 0x3FF, hex(word & 0x3FF))
        if name.startswith("SET_"):
            registers[name] = (word >> 16, words[at + 1] if long else 0)
        elif not name.endswith(("WAIT", "STOP")):
            found.append(Command(name, word >> 16, dict(registers)))
        at += 1 + long
    return found


def scaled(acc: Array, scale: int, shift: int, rounding: int) -> Any:
    """acc * scale / 2^shift of Python integers, rounded."""
    product: Any = acc * scale
    if rounding == TRUNCATE:
        return np.sign(product) * (abs(product) >> shift)
    if rounding == NATURAL:
        return product + ((1 << shift) >> 1) >> shift
    left, right = max(31 - shift, 0), max(shift - 31, 0)
    high = (product * (1 << left) + (1 << 30)) >> 31  # ties upward, as gemmlowp's
    half = (1 << right) >> 1
    return np.sign(high) * ((abs(high) + half) >> right)


def halves_away(acc: Any, shift: int) -> Any:
    """acc / 2^shift, one rounding."""
    return np.sign(acc) * ((abs(acc) + ((1 << shift) >> 1)) >> shift)


class Npu:
    """An Ethos-U55 or U65 as far as the module's text says, with a compiled model."""

    def __init__(self, model: Any) -> None:
        self.model = model
        constants = np.frombuffer(bytes(model.read_only.data), np.uint8)
        self.memory = {0: constants.copy(), 1: np.zeros(model.scratch.size + 64, np.uint8),
                       2: np.zeros(max(model.scratch_fast.size, 1) + 64, np.uint8),
                       3: np.zeros(1 << 16, np.uint8)}  # fmt: skip
        self.luts: list[int] = []
        self.sums: Array | None = None  # of products, of a layer: its weights aren't read
        self.commands = commands(model.command_stream)

    def run(self, *inputs: Array) -> list[Array]:
        """The outputs for these inputs, in the model's order."""
        for tensor, array in zip(self.model.inputs, inputs, strict=True):
            flat = np.ascontiguousarray(array).view(np.uint8).ravel()
            self.memory[tensor.region][tensor.address : tensor.address + flat.size] = flat
        for command in self.commands:
            getattr(self, command.name.lower())(command)
        found = []
        for tensor in self.model.outputs:
            size = int(np.prod(tensor.shape)) * tensor.element_size
            found.append(self.memory[tensor.region][tensor.address : tensor.address + size].reshape(tensor.shape))
        return found

    def op_dma_start(self, c: Command) -> None:
        """A copy; the internal memory, region 3 here, holds the tables."""
        source, target = c.payload("DMA0_SRC"), c.payload("DMA0_DST")
        size = c.payload("DMA0_LEN")
        data = self.memory[c["DMA0_SRC_REGION"] & 3][source : source + size]
        self.memory[c["DMA0_DST_REGION"] & 3][target : target + size] = data
        if c["DMA0_DST_REGION"] & 256:
            self.luts.append(target)

    def _where(self, c: Command, kind: str, shape: tuple[int, int, int]) -> tuple[Array, int, bool]:
        """Addresses of all elements, bytes of one, and whether they are signed."""
        precision = c[f"{kind}_PRECISION"]
        size = 1 << (precision >> (1 if kind == "OFM" else 2) & 3)
        y, x, channel = np.ogrid[: shape[0], : shape[1], : shape[2]]
        if precision & 64:  # bricks of 16 channels
            at = x * 16 * size + channel // 16 * c.payload(f"{kind}_STRIDE_C") + channel % 16 * size
        else:
            at = x * c.payload(f"{kind}_STRIDE_X") + channel * size
        return at + y * c.payload(f"{kind}_STRIDE_Y") + c.payload(f"{kind}_BASE0"), size, bool(precision & 1)

    def _load(self, c: Command, kind: str, shape: tuple[int, int, int]) -> Array:
        at, size, signed = self._where(c, kind, shape)
        data = self.memory[c[f"{kind}_REGION"] & 3]
        raw = data[at[..., None] + np.arange(size)].copy().view(f"{'i' if signed else 'u'}{size}")[..., 0]
        return raw.astype(object) - c_zero(c, kind, signed)

    def _store(self, c: Command, values: Array) -> None:
        at, size, signed = self._where(c, "OFM", values.shape)
        values = values + c_zero(c, "OFM", signed)
        kind = c["ACTIVATION"]
        low, high = c.signed("ACTIVATION_MIN"), c.signed("ACTIVATION_MAX")
        if kind >> 12 == 3:  # clipped to int8, before a table of 32 bits
            low, high = max(low, -128), min(high, 127)
        elif not signed and size == 1:
            low, high = c["ACTIVATION_MIN"], c["ACTIVATION_MAX"]
        elif size == 4:
            low, high = INT32
        values = np.minimum(np.maximum(values, low), high)
        if kind & 31 >= 16:
            values = self._looked_up(c, values, size, signed)
        raw = values.astype(np.int64).astype(f"{'i' if signed else 'u'}{size}")[..., None].view(np.uint8)
        self.memory[c["OFM_REGION"] & 3][at[..., None] + np.arange(size)] = raw

    def _looked_up(self, c: Command, values: Array, size: int, signed: bool) -> Array:
        start = self.luts[-1]
        kind = f"{'i' if signed else 'u'}{size}"
        table = self.memory[3][start : start + 256 * size].view(kind)
        return table[(values + (128 if signed else 0)).astype(np.int64)].astype(object)

    def _shape(self, c: Command, kind: str = "OFM") -> tuple[int, int, int]:
        return c["OFM_HEIGHT_M1"] + 1, c["OFM_WIDTH_M1"] + 1, c[f"{kind}_DEPTH_M1"] + 1

    def op_elementwise(self, c: Command) -> None:
        """Two tensors, or one, value by value."""
        mode, shape = c.parameter, self._shape(c)
        first = self._load(c, "IFM", shape)
        scale, shift = c.scale()
        wide = c["IFM_PRECISION"] >> 2 & 3 == 2
        if mode in (ABS, CLZ, LRELU):
            if mode == CLZ:
                return self._store(c, 32 - np.vectorize(lambda v: int(v).bit_length(), otypes=[object])(first))
            raise NotImplementedError(mode)
        second = self._second(c, shape)
        if c["IFM2_BROADCAST"] & 64:
            first, second = second, first
        if mode == MUL:
            product = first * second
            values = scaled(product, 1 if wide else scale, shift, c.rounding)
        elif mode in (ADD, SUB):
            values = self._sum(c, first, second)
        elif mode in (MIN, MAXIMUM):
            values = (np.minimum if mode == MIN else np.maximum)(first, second)
        elif mode == SHL:
            values = first * (1 << second)
        else:
            values = (first + ((1 << second) >> 1)) >> second if c.rounding == NATURAL else first >> second
        return self._store(c, values)

    def _second(self, c: Command, shape: tuple[int, int, int]) -> Array:
        cast = c["IFM2_BROADCAST"]
        if cast & 128:
            signed = bool(c["IFM2_PRECISION"] & 1)
            value = c.signed("IFM2_SCALAR") if signed else c["IFM2_SCALAR"]
            return np.full(shape, value - c_zero(c, "IFM2", signed), object)
        own = tuple(1 if cast >> i & 1 else size for i, size in enumerate(shape))
        return np.broadcast_to(self._load(c, "IFM2", own), shape)  # type: ignore[arg-type]

    def _sum(self, c: Command, first: Array, second: Array) -> Any:
        (scale, shift), (a, a_shift), (b, _) = c.scale(), c.scale("OPA_SCALE"), c.scale("OPB_SCALE")
        sign, which = (-1 if c.parameter == SUB else 1), c["IFM_PRECISION"] >> 8 & 3
        if which == 0:
            total = first * a + sign * second * b
            return total if (scale, shift) == (1, 0) else halves_away(total * scale, shift)
        operands = [v * (1 << 19) if which != i else scaled(v * (1 << 20), a, a_shift + 20, DOUBLE)
                    for i, v in ((1, first), (2, second))]  # fmt: skip
        return scaled(operands[0] + sign * operands[1], scale, shift, c.rounding)

    def op_pool(self, c: Command) -> None:
        """The greatest of a window, its average, or the sum of all channels."""
        kernel = c["KERNEL_HEIGHT_M1"] + 1, c["KERNEL_WIDTH_M1"] + 1
        shape, depth = self._shape(c), c["IFM_DEPTH_M1"] + 1
        windows, inside = self._windows(c, kernel, depth)
        scale, shift = c.scale()
        if c.parameter == MAX:
            return self._store(c, np.where(inside, windows, -(2**31)).max(3))
        total = (windows * inside).sum(3)
        if c.parameter == REDUCE_SUM:
            return self._store(c, scaled(total.sum(2, keepdims=True), scale, shift, c.rounding))
        padded = any(c[f"IFM_PAD_{side}"] for side in ("TOP", "LEFT", "BOTTOM", "RIGHT"))
        if padded:
            count = np.broadcast_to(inside.sum(3), shape).astype(object)
            return self._store(c, np.sign(total) * ((abs(total) + count // 2) // count))
        return self._store(c, scaled(total, scale, shift, c.rounding))

    def _windows(self, c: Command, kernel: tuple[int, int], depth: int) -> tuple[Array, Array]:
        """The pixels of each window, (height, width, depth, pixels), and which of them lie inside the image."""
        rows, columns, _ = self._shape(c)
        packed, up = c["KERNEL_STRIDE"], 2 if c["IFM_UPSCALE"] == 1 else 1
        steps = [1 + (packed >> low & 1) + 2 * (packed >> high & 7) for low, high in ((1, 9), (0, 6))]
        pad = c["IFM_PAD_TOP"], c["IFM_PAD_LEFT"]
        ends = c["IFM_PAD_BOTTOM"], c["IFM_PAD_RIGHT"]
        size = [
            (n - 1) * s + k - p - e for n, s, k, p, e in zip((rows, columns), steps, kernel, pad, ends, strict=True)
        ]
        image = self._load(c, "IFM", (-(-size[0] // up), -(-size[1] // up), depth))
        image = image.repeat(up, 0).repeat(up, 1)
        grids = [np.arange(n)[:, None] * s + np.arange(k) - p
                 for n, s, k, p in zip((rows, columns), steps, kernel, pad, strict=True)]  # fmt: skip
        held = [np.clip(g, 0, n - 1) for g, n in zip(grids, size, strict=True)]
        valid = [(g >= 0) & (g < n) for g, n in zip(grids, size, strict=True)]
        taken = image[held[0][:, None, :, None], held[1][None, :, None, :]]
        inside = valid[0][:, None, :, None] & valid[1][None, :, None, :]
        flat = taken.reshape(rows, columns, -1, depth).transpose(0, 1, 3, 2)
        return flat, inside.reshape(rows, columns, 1, -1)

    def scales(self, c: Command) -> list[tuple[int, int, int]]:
        """Bias, scale and shift of each channel of a layer: 40, 32 and 6 bits in ten bytes."""
        start, size = c.payload("SCALE_BASE"), c.payload("SCALE_LENGTH")
        records = self.memory[c["SCALE_REGION"] & 3][start : start + size].tobytes()
        return [
            (int.from_bytes(r[:5], "little", signed=True), int.from_bytes(r[5:9], "little"), r[9] & 63)
            for r in (records[10 * i : 10 * i + 10] for i in range(c["OFM_DEPTH_M1"] + 1))
        ]

    def op_conv(self, c: Command) -> None:
        """The last step of a layer: biases, scales, zero point."""
        assert self.sums is not None
        parts, depth = self.scales(c), self.sums.shape[-1]
        acc = self.sums.astype(object).reshape(c["OFM_HEIGHT_M1"] + 1, c["OFM_WIDTH_M1"] + 1, depth)
        values = [scaled(acc[..., i] + bias, s, n, c.rounding) for i, (bias, s, n) in enumerate(parts)]
        self._store(c, np.stack(values, -1))

    def op_depthwise(self, c: Command) -> None:
        """As a convolution; without given sums, of up to 8 channels, whose weights come position by position."""
        if self.sums is not None:
            return self.op_conv(c)
        kernel, depth = (c["KERNEL_HEIGHT_M1"] + 1, c["KERNEL_WIDTH_M1"] + 1), c["OFM_DEPTH_M1"] + 1
        start, size = c.payload("WEIGHT_BASE"), c.payload("WEIGHT_LENGTH")
        stream = mlw_codec.decode(bytearray(self.memory[c["WEIGHT_REGION"] & 3][start : start + size].tobytes()))
        weights = np.array(stream[: kernel[0] * kernel[1] * 8], object).reshape(-1, 8)[:, :depth]
        windows, inside = self._windows(c, kernel, depth)
        self.sums = (windows * inside * weights.T).sum(3)
        self.op_conv(c)
        self.sums = None
        return None


def c_zero(c: Command, kind: str, signed: bool) -> int:
    """A zero point, as its tensor's type has it."""
    return c.signed(f"{kind}_ZERO_POINT") if signed else c[f"{kind}_ZERO_POINT"]

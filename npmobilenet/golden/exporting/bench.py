"""A test bench of one layer, in C or Verilog: it reads the exported files, computes the layer, and compares.

What it takes from the export is what a device needs; so if its integers agree, the export suffices. Its rounding steps
are those of arithmetic/fixedpoint.py, written once more.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from npmobilenet.errors import InputError
from npmobilenet.golden.exporting.bench_ops import C_STEPS, OPS, VERILOG_CHECK, VERILOG_LOOPS, bench_of_op
from npmobilenet.golden.inputs import find_tensor
from npmobilenet.golden.recording import EVERYTHING
from npmobilenet.graph import Graph
from npmobilenet.runtime.taps import ACCUMULATING

FILES = {"c": "bench.c", "hex": "bench.v"}
INTEGER_RULES = ("double", "upward", "single", "upward_late", "rndnu16")
BENCHED = (*ACCUMULATING, *OPS)


def bench_taps(graph: Graph, name: str, kind: str, has_input: bool, taps: str | Iterable[str]) -> str | Iterable[str]:
    """The taps, those of the layer and of its input among them. Raises `InputError` if no bench can be made."""
    _, tensor = find_tensor(graph, name)
    node = graph.producers.get(tensor)
    eight = node is not None and graph.tensors[node.inputs[0]].dtype in ("uint8", "int8")
    if node is None or node.op not in BENCHED or not eight:
        what = "an input" if node is None else f"{node.op} of {graph.tensors[node.inputs[0]].dtype}"
        raise InputError(f"a bench is written for {', '.join(BENCHED)} of 8 bits; '{name}' is {what}")
    if kind not in FILES or not has_input:
        raise InputError("a bench needs an INPUT, whose values it compares with, and files of format c or hex")
    if taps == EVERYTHING:
        return taps
    read = [n for n in node.inputs if not graph.tensors[n].constant]
    return [*([taps] if isinstance(taps, str) else taps), *read, tensor]


def bench_of(manifest: Mapping[str, Any], tensor: str) -> tuple[str, str]:
    """File name and text of the bench for the node that computes `tensor`."""
    node = next(node for node in manifest["nodes"] if node["output"]["name"] == tensor)
    vectors = {vector["name"]: vector for vector in manifest["vectors"]}
    operands, y = [vectors[operand["name"]] for operand in node["inputs"]], vectors[tensor]
    kind = manifest["export"]
    if node["op"] in OPS:
        return FILES[kind], bench_of_op(node, operands, y, kind, _comment(node["name"]))
    x = operands[0]
    if node["parameters"]["rule"] not in _C_RULES:
        raise InputError(
            f"'{tensor}' is rounded by the rule '{node['parameters']['rule']}', which no bench has yet; choose another "
            "--dialect, or export without --bench"
        )
    if kind == "hex" and node["parameters"]["rule"] not in INTEGER_RULES:
        raise InputError(
            f"'{tensor}' is rounded by the rule '{node['parameters']['rule']}', in floating point, which the Verilog "
            "bench can't do; choose another --dialect, or --format c"
        )
    ohwi = manifest["order"] == "ohwi"
    return FILES[kind], (_c if kind == "c" else _verilog)(node, x, y, ohwi)


def _sizes(node: Mapping[str, Any], batch: int) -> dict[str, int]:
    """Of the layer as a convolution: a dense one is that of a single pixel with all its values as channels."""
    weights, out = node["files"]["weights"], node["output"]["shape"]
    if node["op"] == "fully_connected":
        features = weights["shape"][weights["axes"].index("ci")]
        rows = 1
        for size in out[1:-1]:
            rows *= size
        unit = {"ih": 1, "iw": rows, "ic": features, "oh": 1, "ow": rows, "oc": out[-1], "kh": 1, "kw": 1}
        return {"n": batch, **unit, "sh": 1, "sw": 1, "dh": 1, "dw": 1, "pt": 0, "pl": 0, "m": 1}
    s, (_, ih, iw, ic), (_, oh, ow, oc) = node["spatial"], node["inputs"][0]["shape"], out
    window = {"kh": s["kernel_h"], "kw": s["kernel_w"], "sh": s["stride_h"], "sw": s["stride_w"]}
    window |= {"dh": s["dilation_h"], "dw": s["dilation_w"], "pt": s["pad_top"], "pl": s["pad_left"]}
    return {"n": batch, "ih": ih, "iw": iw, "ic": ic, "oh": oh, "ow": ow, "oc": oc, **window,
            "m": s.get("depth_multiplier", 1)}  # fmt: skip


def _indices(node: Mapping[str, Any], ohwi: bool) -> tuple[str, str]:
    """How many input channels an output sums, and where a weight lies."""
    if node["op"] == "depthwise_conv2d":
        return "1", "(ky * KW + kx) * OC + co"
    if ohwi:
        return "IC", "((co * KH + ky) * KW + kx) * IC + ci"
    return "IC", "((ky * KW + kx) * IC + ci) * OC + co"


# ---------------------------------------------------------------------------------------------------------------------
# C

_C = """/* written by npmobilenet golden export: {name} ({op}), computed and compared with its vector */
#include <math.h>
#include <stdint.h>
#include <stdio.h>
#include "params.h"

enum {{ {sizes} }};
#define P(part) {upper}_##part

{steps}

static int64_t scaled(int32_t acc, int co) {{
  int32_t multiplier = {symbol}_multiplier[co];
  int shift = {symbol}_shift[co];
  {rule}
}}

int main(void) {{
  long values = 0, differ = 0;
  int n, oy, ox, co, ky, kx, ci;
  for (n = 0; n < N; n++)
    for (oy = 0; oy < OH; oy++)
      for (ox = 0; ox < OW; ox++)
        for (co = 0; co < OC; co++) {{
          uint32_t acc = (uint32_t){symbol}_bias[co]; /* wraps, as an int32 of the engine does */
          int64_t v;
          for (ky = 0; ky < KH; ky++)
            for (kx = 0; kx < KW; kx++)
              for (ci = 0; ci < {depth}; ci++) {{
                int iy = oy * SH - PT + ky * DH, ix = ox * SW - PL + kx * DW;
                int channel = {channel};
                if (iy < 0 || iy >= IH || ix < 0 || ix >= IW) continue;
                acc += (uint32_t)(({x}[((n * IH + iy) * IW + ix) * IC + channel] - P(INPUT_ZERO_POINT)) *
                                  ({symbol}_weights[{weight}] - P(WEIGHTS_ZERO_POINT)));
              }}
          v = (int32_t)(uint32_t)(scaled((int32_t)acc, co) + P(ZERO_POINT));
          v = v < P(LOW) ? P(LOW) : v > P(HIGH) ? P(HIGH) : v;
          differ += v != {y}[((n * OH + oy) * OW + ox) * OC + co];
          values++;
        }}
  printf("%ld values, %ld differ\\n", values, differ);
  return differ != 0;
}}
"""
_C_RULES = {
    "double": "return doubly(acc, multiplier, shift);",
    "upward": "int right = shift < 0 ? -shift : 0;\n"
    "  int32_t moved = (int32_t)((uint32_t)acc << (shift > 0 ? shift : 0));\n"
    "  return (high_mul(moved, multiplier) + ((INT64_C(1) << right) >> 1)) >> right;",
    "single": "return (int32_t)(uint32_t)(((int64_t)acc * multiplier + (INT64_C(1) << (30 - shift))) >> (31 - shift));",
    "upward_late": "int64_t v = high_mul(acc, multiplier);\n"
    "  v = shift < 0 ? (v + ((INT64_C(1) << -shift) >> 1)) >> -shift : v * (INT64_C(1) << shift);\n"
    "  return v < INT32_MIN ? INT32_MIN : v > INT32_MAX ? INT32_MAX : v;",
    "rndnu16": "int64_t v = shift < 0 ? ((int64_t)acc + ((INT64_C(1) << -shift) >> 1)) >> -shift : acc;\n"
    "  v = v < -32768 ? -32768 : v > 32767 ? 32767 : v;\n"
    "  v = v * (INT64_C(1) << (shift > 0 ? shift : 0));\n"
    "  v = v < -32768 ? -32768 : v > 32767 ? 32767 : v;\n"
    "  return (v * (multiplier >> 16) + 16384) >> 15;",
    "float32": "float product = (float)acc * (float){symbol}_scale[co];\n"
    "  (void)multiplier, (void)shift;\n"
    "  product = product < -1073741824.0f ? -1073741824.0f : product > 1073741824.0f ? 1073741824.0f : product;\n"
    "  return (int64_t)rintf(product);",
    "float64": "double v = (double)acc * {symbol}_scale[co];\n"
    "  (void)multiplier, (void)shift;\n"
    "  return v >= 2147483647.5 || v <= -2147483647.5 ? INT32_MIN : (int64_t)round(v);",
}


def _c(node: Mapping[str, Any], x: Mapping[str, Any], y: Mapping[str, Any], ohwi: bool) -> str:
    sizes = _sizes(node, x["shape"][0])
    depth, weight = _indices(node, ohwi)
    rule = _C_RULES[node["parameters"]["rule"]].format(symbol=node["symbol"])
    if "tail" in node["parameters"]:  # the last channels, which vectors leave over
        rule = f"if (co >= P(TAIL)) return doubly(acc, multiplier, shift);\n  {rule}"
    return _C.format(
        steps=C_STEPS, name=_comment(node["name"]), op=node["op"], symbol=node["symbol"],
        upper=node["symbol"].upper(), rule=rule,
        sizes=", ".join(f"{k.upper()} = {v}" for k, v in sizes.items()), depth=depth, weight=weight,
        channel="co / M" if node["op"] == "depthwise_conv2d" else "ci", x=x["symbol"], y=y["symbol"],
    )  # fmt: skip


def _comment(name: str) -> str:
    return "".join(c if c.isascii() and c.isprintable() else "?" for c in name).replace("*/", "* /").replace("\\", "/")


# ---------------------------------------------------------------------------------------------------------------------
# Verilog

_VERILOG = (
    """// written by npmobilenet golden export: {name} ({op}), computed and compared with its vector
`timescale 1ns / 1ns
module bench;
  localparam integer {sizes};
  reg {x_sign}[7:0] x [0:{x_last}];
  reg {w_sign}[7:0] weights [0:{w_last}];
  reg {y_sign}[7:0] y [0:{y_last}];
  reg signed [31:0] bias [0:OC - 1];
  reg signed [31:0] multiplier [0:OC - 1];
  reg signed [7:0] shift [0:OC - 1];
  integer n, oy, ox, co, ky, kx, ci, iy, ix, values, differ;
  reg signed [31:0] acc, moved, a, w, s, v, expected;
  reg signed [63:0] product, mask, half;

  initial begin
    $readmemh("{x}", x);
    $readmemh("{weights}", weights);
    $readmemh("{bias}", bias);
    $readmemh("{multiplier}", multiplier);
    $readmemh("{shift}", shift);
    $readmemh("{y}", y);
"""
    + VERILOG_LOOPS
    + """\
            acc = bias[co];
            for (ky = 0; ky < KH; ky = ky + 1)
              for (kx = 0; kx < KW; kx = kx + 1)
                for (ci = 0; ci < {depth}; ci = ci + 1) begin
                  iy = oy * SH - PT + ky * DH;
                  ix = ox * SW - PL + kx * DW;
                  if (iy >= 0 && iy < IH && ix >= 0 && ix < IW) begin
                    a = x[((n * IH + iy) * IW + ix) * IC + {channel}];
                    w = weights[{weight}];
                    acc = acc + (a - ({x_zero})) * (w - ({w_zero}));
                  end
                end
            s = shift[co];
            {rule}
            v = product + ({zero});
"""
    + VERILOG_CHECK
)
# product: the accumulator in units of the output's scale
_HIGH = """moved = s > 0 ? acc << s : acc;
            product = moved;
            product = (product * multiplier[co] + 64'sd1073741824) >>> 31;
            s = s < 0 ? -s : 0;
            """
_AWAY = (
    _HIGH
    + """mask = (64'sd1 << s) - 64'sd1;
            half = (mask >>> 1) + (product < 0 ? 64'sd1 : 64'sd0);
            product = (product >>> s) + ((product & mask) > half ? 64'sd1 : 64'sd0);"""
)
_NARROW = "product = product < -64'sd32768 ? -64'sd32768 : product > 64'sd32767 ? 64'sd32767 : product;"
_VERILOG_RULES = {
    "double": _AWAY,
    "upward": _HIGH + "product = (product + ((64'sd1 << s) >>> 1)) >>> s;",
    "single": """product = acc;
            product = (product * multiplier[co] + (64'sd1 <<< (30 - s))) >>> (31 - s);
            moved = product;
            product = moved;""",
    "upward_late": """product = acc;
            product = (product * multiplier[co] + 64'sd1073741824) >>> 31;
            product = s < 0 ? (product + ((64'sd1 << -s) >>> 1)) >>> -s : product <<< s;
            if (product < -64'sd2147483648) product = -64'sd2147483648;
            if (product > 64'sd2147483647) product = 64'sd2147483647;""",
    "rndnu16": f"""product = acc;
            if (s < 0) product = (product + ((64'sd1 << -s) >>> 1)) >>> -s;
            {_NARROW}
            if (s > 0) product = product <<< s;
            {_NARROW}
            product = (product * (multiplier[co] >>> 16) + 64'sd16384) >>> 15;""",
}


def _verilog(node: Mapping[str, Any], x: Mapping[str, Any], y: Mapping[str, Any], ohwi: bool) -> str:
    sizes, p = _sizes(node, x["shape"][0]), node["parameters"]
    depth, weight = _indices(node, ohwi)
    files = node["files"]
    rule = _VERILOG_RULES[p["rule"]]
    if "tail" in p:
        rule = f"if (co >= {p['tail']}) begin {_AWAY} end else begin {rule} end"
    arrays: dict[str, Any] = {}
    for what, array in (("x", x), ("w", files["weights"]), ("y", y)):
        count = 1
        for size in array["shape"]:
            count *= size
        arrays |= {f"{what}_sign": "signed " if array["dtype"] == "int8" else "", f"{what}_last": count - 1}
    return _VERILOG.format(
        name=_comment(node["name"]), op=node["op"], rule=rule, depth=depth, weight=weight,
        sizes=", ".join(f"{k.upper()} = {v}" for k, v in sizes.items()), x=x["file"], y=y["file"],
        channel="co / M" if node["op"] == "depthwise_conv2d" else "ci", x_zero=p["input_zero_point"],
        w_zero=p["weights_zero_point"], zero=p["zero_point"], low=p["low"], high=p["high"], **arrays,
        **{part: files[part]["file"] for part in ("weights", "bias", "multiplier", "shift")},
    )  # fmt: skip

"""The test benches of sums, products and pools; bench.py has those of layers with weights."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

from npmobilenet.errors import InputError

ELEMENTWISE = ("add", "sub", "mul")
OPS = (*ELEMENTWISE, "average_pool")
Described = Mapping[str, Any]

C_STEPS = """/* a * b / 2^31, rounded to nearest, ties upward */
static inline int64_t high_mul(int32_t a, int32_t b) { return ((int64_t)a * b + (INT64_C(1) << 30)) >> 31; }

/* v / 2^s, rounded to nearest, ties away from zero */
static inline int64_t shift_away(int64_t v, int s) {
  int64_t mask = (INT64_C(1) << s) - 1;
  return (v >> s) + ((v & mask) > (mask >> 1) + (v < 0));
}

static inline int64_t doubly(int32_t acc, int32_t multiplier, int shift) {
  int32_t moved = (int32_t)((uint32_t)acc << (shift > 0 ? shift : 0));
  return shift_away(high_mul(moved, multiplier), shift < 0 ? -shift : 0);
}"""
_C_TOP = """/* written by npmobilenet golden export: {name} ({op}), computed and compared with its vector */
#include <math.h>
#include <stdint.h>
#include <stdio.h>
#include "params.h"

enum {{ {sizes} }};
#define P(part) {upper}_##part

{steps}

static inline int64_t singly(int32_t acc, int32_t multiplier, int shift) {{
  return (int32_t)(uint32_t)(((int64_t)acc * multiplier + (INT64_C(1) << (30 - shift))) >> (31 - shift));
}}

int main(void) {{
  long values = 0, differ = 0;
  int n, oy, ox, co;
  for (n = 0; n < N; n++)
    for (oy = 0; oy < OH; oy++)
      for (ox = 0; ox < OW; ox++)
        for (co = 0; co < OC; co++) {{
          int64_t v;
          {body}
          v = v < P(LOW) ? P(LOW) : v > P(HIGH) ? P(HIGH) : v;
          differ += v != {out}[((n * OH + oy) * OW + ox) * OC + co];
          values++;
        }}
  printf("%ld values, %ld differ\\n", values, differ);
  return differ != 0;
}}
"""
_C_OPERAND = (
    "int32_t {v} = {array}[((n % {s}N * {s}H + oy % {s}H) * {s}W + ox % {s}W) * {s}C + co % {s}C] - P(ZERO_{s});"
)
_C_SUM = (
    "int32_t total = (int32_t)({f}(a * (1 << 20), P(MULTIPLIER_X), P(SHIFT_X)) +\n"
    "            P(SIGN) * {f}(b * (1 << 20), P(MULTIPLIER_Y), P(SHIFT_Y)));\n"
    "          v = {f}(total, P(MULTIPLIER), P(SHIFT)) + P(ZERO_POINT);"
)
_C_BODIES = {
    ("add", "double"): _C_SUM.format(f="doubly"),
    ("add", "single"): _C_SUM.format(f="singly"),
    ("add", "linear"): "v = (int64_t)a * P(MULTIPLIER_X) + P(SIGN) * (int64_t)b * P(MULTIPLIER_Y);\n"
    "          v = ((v + ((INT64_C(1) << P(SHIFT)) >> 1)) >> P(SHIFT)) + P(ZERO_POINT);",
    ("mul", "double"): "v = doubly(a * b, P(MULTIPLIER), P(SHIFT)) + P(ZERO_POINT);",
    ("mul", "single"): "v = singly(a * b, P(MULTIPLIER), P(SHIFT)) + P(ZERO_POINT);",
}
_C_POOL = """int total = 0, count = 0, ky, kx;
          for (ky = 0; ky < KH; ky++)
            for (kx = 0; kx < KW; kx++) {{
              int iy = oy * SH - PT + ky, ix = ox * SW - PL + kx;
              if (iy < 0 || iy >= XH || ix < 0 || ix >= XW) continue;
              total += {x}[((n * XH + iy) * XW + ix) * OC + co];
              count++;
            }}
          /* rounded to nearest, ties away from zero; a window without a pixel gives the zero point */
          v = count == 0 ? P(ZERO_POINT) : total >= 0 ? (total + count / 2) / count : -((count / 2 - total) / count);"""

# Both Verilog benches: the loops over all outputs, and the comparison of one, v.
VERILOG_LOOPS = """\
    values = 0;
    differ = 0;
    for (n = 0; n < N; n = n + 1)
      for (oy = 0; oy < OH; oy = oy + 1)
        for (ox = 0; ox < OW; ox = ox + 1)
          for (co = 0; co < OC; co = co + 1) begin
"""
VERILOG_CHECK = """\
            if (v < {low}) v = {low};
            if (v > {high}) v = {high};
            expected = y[((n * OH + oy) * OW + ox) * OC + co];
            if (v != expected) differ = differ + 1;
            values = values + 1;
          end
    $display("%0d values, %0d differ", values, differ);
    $finish;
  end
endmodule
"""

_VERILOG = (
    """// written by npmobilenet golden export: {name} ({op}), computed and compared with its vector
`timescale 1ns / 1ns
module bench;
  localparam integer {sizes};
{memories}
  integer n, oy, ox, co, ky, kx, iy, ix, values, differ, count, total, a, b, expected;
  reg signed [63:0] v;

  // acc * m * 2^(s - 31)
  function signed [63:0] doubly(input signed [31:0] acc, input signed [31:0] m, input signed [31:0] s);
    reg signed [31:0] moved;
    reg signed [63:0] p, mask, half;
    integer r;
    begin
      moved = s > 0 ? acc << s : acc;
      p = moved;
      p = (p * m + 64'sd1073741824) >>> 31;
      r = s < 0 ? -s : 0;
      mask = (64'sd1 << r) - 64'sd1;
      half = (mask >>> 1) + (p < 0 ? 64'sd1 : 64'sd0);
      doubly = (p >>> r) + ((p & mask) > half ? 64'sd1 : 64'sd0);
    end
  endfunction
  function signed [63:0] singly(input signed [31:0] acc, input signed [31:0] m, input signed [31:0] s);
    reg signed [31:0] kept;
    reg signed [63:0] p;
    begin
      p = acc;
      p = (p * m + (64'sd1 <<< (30 - s))) >>> (31 - s);
      kept = p;
      singly = kept;
    end
  endfunction

  initial begin
{loads}
"""
    + VERILOG_LOOPS
    + """\
            {body}
"""
    + VERILOG_CHECK
)
_V_OPERAND = """{v} = {array}[((n % {s}N * {s}H + oy % {s}H) * {s}W + ox % {s}W) * {s}C + co % {s}C];
            {v} = {v} - ({zero});"""
_V_SUM = (
    "total = {f}(a * 1048576, {multiplier_x}, {shift_x}) + ({sign}) * {f}(b * 1048576, {multiplier_y}, {shift_y});\n"
    "            v = {f}(total, {multiplier}, {shift}) + ({zero_point});"
)
_V_BODIES = {
    ("add", "double"): _V_SUM.replace("{f}", "doubly"),
    ("add", "single"): _V_SUM.replace("{f}", "singly"),
    ("add", "linear"): "v = a;\n            v = v * {multiplier_x};\n"
    "            v = v + ({sign}) * ({multiplier_y}) * (64'sd1 * b);\n"
    "            v = ((v + ((64'sd1 << {shift}) >>> 1)) >>> {shift}) + ({zero_point});",
    ("mul", "double"): "v = doubly(a * b, {multiplier}, {shift}) + ({zero_point});",
    ("mul", "single"): "v = singly(a * b, {multiplier}, {shift}) + ({zero_point});",
}
_V_POOL = """total = 0;
            count = 0;
            for (ky = 0; ky < KH; ky = ky + 1)
              for (kx = 0; kx < KW; kx = kx + 1) begin
                iy = oy * SH - PT + ky;
                ix = ox * SW - PL + kx;
                if (iy >= 0 && iy < XH && ix >= 0 && ix < XW) begin
                  a = x[((n * XH + iy) * XW + ix) * OC + co];
                  total = total + a;
                  count = count + 1;
                end
              end
            if (count == 0) v = {zero_point};
            else if (total >= 0) v = (total + count / 2) / count;
            else v = -((count / 2 - total) / count);"""


def bench_of_op(node: Described, operands: Sequence[Described], y: Described, kind: str, name: str) -> str:
    """The bench's text, in C ("c") or Verilog ("hex"). Raises `InputError` for rules and operands that it hasn't."""
    p, pool = node["parameters"], node["op"] == "average_pool"
    key = ("mul" if node["op"] == "mul" else "add", p.get("rule", ""))
    if not pool and (key not in _C_BODIES or p.get("lanes", p["rule"]) != p["rule"] or len(operands) != 2):
        rule = "an operand that is a constant" if len(operands) != 2 else f"the rule '{p.get('lanes', p['rule'])}'"
        raise InputError(
            f"'{node['name']}' ({node['op']}) has {rule}, for which no bench is written; choose another --dialect, or "
            "export without --bench"
        )
    shapes = dict(zip("XY", map(_nhwc, operands), strict=False))
    sizes = {**{f"{v}{axis}": size for v, shape in shapes.items() for axis, size in zip("NHWC", shape, strict=True)},
             **dict(zip(("N", "OH", "OW", "OC"), _nhwc(y), strict=True))}  # fmt: skip
    if pool:
        s = node["spatial"]
        sizes |= {"KH": s["kernel_h"], "KW": s["kernel_w"], "SH": s["stride_h"], "SW": s["stride_w"],
                  "PT": s["pad_top"], "PL": s["pad_left"]}  # fmt: skip
    facts = {"name": name, "op": node["op"], "sizes": ", ".join(f"{k} = {v}" for k, v in sizes.items())}
    names = list(zip("ab", "XY", operands, strict=False))
    if kind == "c":
        read = [_C_OPERAND.format(v=v, s=s, array=x["symbol"]) for v, s, x in names]
        body = _C_POOL.format(x=operands[0]["symbol"]) if pool else "\n          ".join([*read, _C_BODIES[key]])
        return _C_TOP.format(**facts, steps=C_STEPS, upper=node["symbol"].upper(), out=y["symbol"], body=body)
    memories, loads = [], []
    for memory, array in (*(("xz"[i], x) for i, x in enumerate(operands)), ("y", y)):
        sign = "signed " if array["dtype"] == "int8" else ""
        memories.append(f"  reg {sign}[7:0] {memory} [0:{math.prod(array['shape']) - 1}];")
        loads.append(f'    $readmemh("{array["file"]}", {memory});')
    read = [_V_OPERAND.format(v=v, s=s, array="xz"[i], zero=p.get(f"zero_{s.lower()}"))
            for i, (v, s, _) in enumerate(names)]  # fmt: skip
    body = _V_POOL.format(**p) if pool else "\n            ".join([*read, _V_BODIES[key].format(**p)])
    return _VERILOG.format(
        **facts, memories="\n".join(memories), loads="\n".join(loads), body=body, low=p["low"], high=p["high"]
    )


def _nhwc(array: Described) -> list[int]:
    first, *rest = array["shape"]
    return [first, *[1] * (3 - len(rest)), *rest]

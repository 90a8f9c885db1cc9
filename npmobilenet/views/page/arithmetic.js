// The reference kernels' arithmetic for one value at a time: npmobilenet/kernels/reference/ and
// npmobilenet/arithmetic/fixedpoint.py, each rule in the same order. Floats are rounded to float32 after every
// operation (Math.fround); integers are BigInt from the accumulator on, so that nothing is rounded that isn't said.
// `log` collects what is shown: [what is done, its result].
"use strict";

const f32 = Math.fround;
const view = new DataView(new ArrayBuffer(8));

// a * b + c with one rounding: the product is exact in float64; an inexact sum is rounded to odd before float32.
function fma32(a, b, c) {
  const product = a * b;
  const total = product + c;
  if (!Number.isFinite(total)) return f32(total);
  const shadow = total - product;
  const error = (product - (total - shadow)) + (c - shadow);
  if (error === 0) return f32(total);
  view.setFloat64(0, total);
  const bits = view.getBigUint64(0);
  if (bits & 1n) return f32(total);
  view.setBigUint64(0, error > 0 === total > 0 ? bits + 1n : bits - 1n);
  return f32(view.getFloat64(0));
}

const LOG2_E = f32(1.4426950408889634);
const LN2_HIGH = f32(0.693359375);
const LN2_LOW = f32(-2.12194440e-4);
const EXP_TERMS = [1 / 5040, 1 / 720, 1 / 120, 1 / 24, 1 / 6, 0.5, 1, 1].map(f32);

function exp32(x) {
  if (x > f32(88.72283)) return Infinity;
  if (x < f32(-87.33654)) return 0;
  const k = Math.floor(fma32(x, LOG2_E, 0.5));
  const r = fma32(-k, LN2_LOW, fma32(-k, LN2_HIGH, x));
  let p = EXP_TERMS[0];
  for (const term of EXP_TERMS.slice(1)) p = fma32(p, r, term);
  const low = k >> 1;
  return f32(f32(p * 2 ** low) * 2 ** (k - low));
}

const relu6 = (v) => (v < 0 ? 0 : v > 6 ? 6 : v);
// In the order of npmobilenet/ops.py: ACTIVATIONS.
const ACTIVATIONS = [
  ["none", (v) => v],
  ["relu", (v) => (v < 0 ? 0 : v)],
  ["relu6", relu6],
  ["relu_n1_to_1", (v) => (v < -1 ? -1 : v > 1 ? 1 : v)],
  ["hard_swish", (v) => f32(f32(v * relu6(f32(v + 3))) * f32(1 / 6))],
  ["hard_sigmoid", (v) => f32(relu6(f32(v + 3)) * f32(1 / 6))],
  ["hard_sigmoid_slim", (v) => f32(relu6(f32(v + 3)) * f32(0.16667))],
  ["sigmoid", (v) => f32(1 / f32(1 + exp32(-v)))],
  ["relu_0_to_1", (v) => (v < 0 ? 0 : v > 1 ? 1 : v)],
];

function activate(v, code, log) {
  const [name, rule] = ACTIVATIONS[code];
  const result = rule(v);
  if (code) log.push([name, result]);
  return result;
}

// -- integers --------------------------------------------------------------------------------------------------------

const big = (v) => BigInt(v);
const wrap32 = (v) => BigInt.asIntN(32, v);
const clamp = (v, low, high) => (v < low ? low : v > high ? high : v);
const INT32_MIN = -(2n ** 31n);
const saturate32 = (v) => clamp(v, INT32_MIN, 2n ** 31n - 1n);
const saturate16 = (v) => clamp(v, -32768n, 32767n);

function highMul(a, b) {
  if (a === INT32_MIN && b === INT32_MIN) return 2n ** 31n - 1n;
  return (a * b + (1n << 30n)) >> 31n;
}

function shiftAway(v, s) {
  const mask = (1n << s) - 1n;
  return (v >> s) + ((v & mask) > (mask >> 1n) + (v < 0n ? 1n : 0n) ? 1n : 0n);
}

const shiftUpward = (v, s) => (v + ((1n << s) >> 1n)) >> s;

// The nearest whole number of a float64: ties away from zero, or to even (numpy.rint).
function roundAway(v) {
  const size = Math.abs(v);
  const whole = Math.floor(size) + (size - Math.floor(size) >= 0.5 ? 1 : 0);
  return v >= 0 ? whole : -whole;
}

function rint(v) {
  const low = Math.floor(v);
  const rest = v - low;
  if (rest !== 0.5) return rest < 0.5 ? low : low + 1;
  return low % 2 === 0 ? low : low + 1;
}

const [UPWARD_LATE, RNDNU16, FLOAT32_FUSED] = [20, 21, 22];

// The accumulator in units of the output's scale, by the code of a rule (fixedpoint.py: Rounding).
function requantize(acc, multiplier, shift, scale, rule, log) {
  if (rule === 1 || rule === 2) {
    const [left, right] = shift > 0n ? [shift, 0n] : [0n, -shift];
    const moved = wrap32(acc << left);
    if (left) log.push([`shifted left by ${left}`, moved]);
    const high = highMul(moved, multiplier);
    log.push([`× ${multiplier} / 2^31, to nearest, ties upward`, high]);
    const result = rule === 1 ? shiftAway(high, right) : shiftUpward(high, right);
    log.push([`/ 2^${right}, to nearest, ties ${rule === 1 ? "away from zero" : "upward"}`, result]);
    return result;
  }
  if (rule === 3) {
    const total = 31n - shift;
    const result = wrap32((acc * multiplier + (1n << (total - 1n))) >> total);
    log.push([`× ${multiplier} / 2^${total}, rounded once, ties upward`, result]);
    return result;
  }
  if (rule === 4) {
    const factor = f32(scale);
    const product = f32(f32(Number(acc)) * factor);
    log.push([`× ${factor} in float32`, product]);
    const result = BigInt(rint(clamp(product, -1073741824, 1073741824)));
    log.push(["to the nearest integer, ties to even", result]);
    return result;
  }
  if (rule === 5) {
    const product = Number(acc) * scale;
    log.push([`× ${scale} in float64`, product]);
    const result = Math.abs(product) >= 2147483647.5 ? INT32_MIN : BigInt(roundAway(product));
    log.push(["to the nearest integer, ties away from zero", result]);
    return result;
  }
  if (rule === UPWARD_LATE) {
    const [left, right] = shift > 0n ? [shift, 0n] : [0n, -shift];
    const high = highMul(acc, multiplier);
    log.push([`× ${multiplier} / 2^31, to nearest, ties upward`, high]);
    const result = saturate32(shiftUpward(high, right) << left);
    log.push([left ? `shifted left by ${left}, saturated` : `/ 2^${right}, to nearest, ties upward`, result]);
    return result;
  }
  if (rule === RNDNU16) {
    const [left, right] = shift > 0n ? [shift, 0n] : [0n, -shift];
    const wide = saturate16(saturate16(shiftUpward(acc, right)) << left);
    log.push([`× 2^${shift}, ties upward, saturated to 16 bits`, wide]);
    const result = (wide * (multiplier >> 16n) + 16384n) >> 15n;
    log.push([`× ${multiplier >> 16n} / 2^15, to nearest, ties upward`, result]);
    return result;
  }
  return acc;
}

// Adds the zero point and clamps, as the last two steps of most rules do.
function finish(v, p, log) {
  const moved = v + big(p.zero_point);
  log.push([`+ zero point ${p.zero_point}`, moved]);
  return clamped(moved, p, log);
}

function clamped(v, p, log) {
  const result = clamp(v, big(p.low), big(p.high));
  log.push([`held within ${p.low} … ${p.high}`, result]);
  return result;
}

const each = (list, c) => (Array.isArray(list) ? list[c] : list);

// Which rule holds for element i of an image (fixedpoint.py: VectorRule).
const ruleAt = (i, rule) => (i % rule.run < rule.full ? rule.inside : rule.outside);

function requantized(acc, c, r, log) {
  const rule = ruleAt(c, r.rule);
  const v = requantize(acc, big(each(r.multiplier, c)), big(each(r.shift, c)), each(r.scale, c), rule, log);
  return finish(wrap32(v), { ...r, zero_point: r.zero_point }, log);
}

// -- sums and products of two tensors (reference/binary.py) ----------------------------------------------------------

const wrap16 = (v) => BigInt.asIntN(16, v);

function doubleRounding(v, multiplier, shift) {
  const [left, right] = shift > 0n ? [shift, 0n] : [0n, -shift];
  return shiftAway(highMul(wrap32(v << left), multiplier), right);
}

function singleRounding(v, multiplier, shift) {
  const total = 31n - shift;
  return wrap32((v * multiplier + (1n << (total - 1n))) >> total);
}

const SUMS = { 1: "double", 3: "single", 6: "fused", 7: "floor", 8: "linear" };
const [SATURATED, WRAPPED] = [9, 10];

function commonUnit(v, multiplier, shift, rule) {
  if (rule === "linear") return v * multiplier;
  if (rule === "fused") {
    const left = 20n + shift > 0n ? 20n + shift : 0n;
    const right = -20n - shift > 0n ? -20n - shift : 0n;
    return highMul((v << left) >> right, multiplier);
  }
  if (rule === "floor") return highMul(v << 20n, multiplier) >> -shift;
  return (rule === "single" ? singleRounding : doubleRounding)(v << 20n, multiplier, shift);
}

function sumOf(a, b, p, code, log) {
  const rule = SUMS[code];
  const x = commonUnit(a - big(p.zero_x), big(p.multiplier_x), big(p.shift_x), rule);
  const y = big(p.sign) * commonUnit(b - big(p.zero_y), big(p.multiplier_y), big(p.shift_y), rule);
  log.push([`(${a} − ${p.zero_x}) × ${p.multiplier_x}, shift ${p.shift_x}: in a common unit`, x]);
  log.push([`(${b} − ${p.zero_y}) × ${p.multiplier_y}, shift ${p.shift_y}`, y]);
  const total = x + y;
  log.push(["their sum", total]);
  let v;
  if (rule === "linear") v = shiftUpward(total, big(p.shift));
  else if (rule === "single") v = singleRounding(total, big(p.multiplier), big(p.shift));
  else v = doubleRounding(total, big(p.multiplier), big(p.shift));
  log.push([rule === "linear" ? `/ 2^${p.shift}, ties upward` : `× ${p.multiplier}, shift ${p.shift}, rounded`, v]);
  v += big(p.zero_point);
  log.push([`+ zero point ${p.zero_point}`, v]);
  return clamped(rule === "fused" || rule === "floor" ? wrap16(v) : v, p, log);
}

function productOf(a, b, p, rule, log) {
  const narrow = rule === SATURATED || rule === WRAPPED;
  const acc = (a - big(p.zero_x)) * (b - big(p.zero_y));
  log.push([`(${a} − ${p.zero_x}) × (${b} − ${p.zero_y})`, acc]);
  let v = requantize(acc, big(p.multiplier), big(p.shift), p.scale, narrow ? 1 : rule, log);
  if (rule === SATURATED) v = clamp(v, -32768n, 32767n);
  v += big(p.zero_point);
  log.push([`+ zero point ${p.zero_point}`, v]);
  return clamped(narrow ? wrap16(v) : v, p, log);
}

// -- softmax of 8-bit values (reference/softmax.py) -------------------------------------------------------------------

function oneOverOnePlus(a) {
  const d = (a + 2147483648n) >> 1n;
  let x = 1515870810n + highMul(d, -1010580540n);
  for (let i = 0; i < 3; i++) x += saturate32(highMul(x, 536870912n - highMul(d, x)) << 2n);
  return saturate32(x << 1n);
}

function softmaxFixed(row, i, a, log) {
  const largest = Math.max(...row);
  const e = (v) => big(a.exponentials[largest - v]);
  let total = 0n;
  for (const v of row) total += shiftAway(e(v), 12n);
  log.push(["e^((x − largest) × scale), with 31 fractional bits", e(row[i])]);
  log.push(["sum over all classes, with 19", total]);
  let shift = 0n;
  while (total << shift < 2147483648n) shift += 1n;
  let over = 0n;
  while (total >> over >= 4294967296n) over += 1n;
  const inverse = oneOverOnePlus(((total << shift) >> over) - 2147483648n);
  log.push(["1 / sum, by Newton's method", inverse]);
  const product = highMul(inverse, e(row[i]));
  log.push(["their product", product]);
  const v = shiftAway(product, 12n - shift + over + 23n) + big(a.low);
  log.push(["in units of the output", v]);
  return v > big(a.high) ? big(a.high) : v;
}

function softmaxFloatTable(row, i, a, log) {
  const largest = Math.max(...row);
  const e = (v) => a.exponentials[largest - v];
  const [zero, low, high] = a.limits;
  let total = 0;
  for (const v of row) total = f32(total + e(v));
  log.push(["e^((x − largest) × scale)", e(row[i])], ["sum over all classes", total]);
  const inverse = f32(1 / f32(total * a.scale));
  const v = f32(e(row[i]) * inverse);
  log.push(["their quotient, in units of the output", v]);
  const whole = low === 0 ? Math.trunc(f32(v + 0.5)) : roundAway(v) + zero;
  return big(clamp(whole, low, high));
}

// A positive real factor as multiplier and shift (fixedpoint.py: quantize_multiplier).
function quantizeMultiplier(real) {
  let shift = 0;
  while (real >= 1) [real, shift] = [real / 2, shift + 1];
  while (real < 0.5) [real, shift] = [real * 2, shift - 1];
  const whole = roundAway(real * 2 ** 31);
  return whole === 2 ** 31 ? [2n ** 30n, big(shift + 1)] : [big(whole), big(shift)];
}

function softmaxLut(row, i, a, log) {
  const largest = Math.max(...row);
  const e = (v) => big(a.exponentials[largest - v]);
  const [zero, low, high] = a.limits;
  let total = 0n;
  for (const v of row) total += e(v);
  log.push(["65535 e^((x − largest) × scale), whole", e(row[i])], ["sum over all classes", total]);
  const [multiplier, shift] = quantizeMultiplier(f32(1 / f32(f32(Number(total)) * a.scale)));
  const v = requantize(e(row[i]), multiplier, shift, 0, 2, log) + big(zero);
  return clamp(v, big(low), big(high));
}

// From a layer's description (explorer.py) and the values around it to one recomputed value.
"use strict";

// A tensor's values as they come: channels first, then pixels. The last axis counts as channels.
class Values {
  constructor(tensor, data) {
    const shape = tensor.shape;
    this.dtype = tensor.dtype;
    this.data = data;
    this.channels = shape.length ? shape[shape.length - 1] : 1;
    this.pixels = data.length / this.channels;
    this.height = shape.length === 4 ? shape[1] : 1;
    this.width = this.pixels / this.height;
    this.shape = shape;
  }
  get(y, x, c) {
    return this.data[c * this.pixels + y * this.width + x];
  }
  flat(i) {
    return this.data[(i % this.channels) * this.pixels + Math.floor(i / this.channels)];
  }
  wrapped(y, x, c) {
    return this.get(y % this.height, x % this.width, c % this.channels);
  }
}

// The terms of one output's sum, in the order of the reference loops: where they lie, x, weight.
function terms(layer, inputs, y, x, c, output) {
  const [source, weights] = inputs;
  const found = [];
  const shape = weights.shape;
  const { op, attrs } = layer;
  if (op === "fully_connected") {
    const first = (y * output.width + x) * shape[0];
    for (let i = 0; i < shape[0]; i++) {
      found.push({ at: [i], x: source.flat(first + i), w: weights.data[c * shape[0] + i] });
    }
    return found;
  }
  const [[top], [left]] = attrs.padding;
  const [dy, dx] = attrs.dilation || [1, 1];
  const depthwise = op === "depthwise_conv2d";
  const from = depthwise ? Math.floor(c / (output.channels / source.channels)) : 0;
  for (let ky = 0; ky < shape[0]; ky++) {
    const iy = y * attrs.stride[0] - top + ky * dy;
    for (let kx = 0; kx < shape[1]; kx++) {
      const ix = x * attrs.stride[1] - left + kx * dx;
      if (iy < 0 || iy >= source.height || ix < 0 || ix >= source.width) continue;
      const base = (c * shape[0] + ky) * shape[1] + kx;
      for (let k = 0; k < (depthwise ? 1 : shape[2]); k++) {
        const w = weights.data[depthwise ? base : base * shape[2] + k];
        found.push({ at: [ky, kx, from + k], y: iy, x_: ix, x: source.get(iy, ix, from + k), w });
      }
    }
  }
  return found;
}

// The part of the layer before that an output reads: [y0, x0, y1, x1], clipped to the image.
function windowOf(layer, source, y, x, weights) {
  const { attrs, op } = layer;
  if (op === "mean") return [0, 0, source.height, source.width];
  if (!attrs.stride) return op === "fully_connected" || op === "softmax" ? null : [y, x, y + 1, x + 1];
  const size = attrs.kernel || weights.shape;
  const at = [y, x].map((v, i) => v * attrs.stride[i] - attrs.padding[i][0]);
  const end = at.map((v, i) => v + (size[i] - 1) * ((attrs.dilation || [1, 1])[i]) + 1);
  return [Math.max(at[0], 0), Math.max(at[1], 0), Math.min(end[0], source.height), Math.min(end[1], source.width)];
}

function accumulate(job) {
  const { layer, inputs, args, y, x, c, log } = job;
  const found = (job.terms = terms(layer, inputs, y, x, c, job.output));
  const bias = inputs[2].data[c];
  log.push(["bias", bias]);
  if (!args.zero_points) {
    let acc = bias;
    for (const t of found) t.sum = acc = fma32(t.x, t.w, acc);
    log.push([`${found.length} fused multiply-adds, each rounded once, in this order`, acc]);
    return activate(acc, args.activation, log);
  }
  const [zx, zw] = args.zero_points;
  let acc = bias;
  for (const t of found) {
    t.product = (t.x - zx) * (t.w - zw);
    t.sum = acc += t.product;
  }
  log.push([`+ ${found.length} products: the accumulator`, acc]);
  return requantized(big(acc), c, args.requant, log);
}

function* pixelsOf([y0, x0, y1, x1]) {
  for (let y = y0; y < y1; y++) for (let x = x0; x < x1; x++) yield [y, x];
}

function summed(job, add) {
  const { layer, inputs, y, x, c, log } = job;
  const area = windowOf(layer, inputs[0], y, x);
  let acc = 0;
  let count = 0;
  for (const [iy, ix] of pixelsOf(area)) {
    acc = add(acc, inputs[0].get(iy, ix, c));
    count += 1;
  }
  log.push([`the sum of ${count} pixels`, acc]);
  return [acc, count];
}

const plainAdd = (a, b) => a + b;
const floatAdd = (a, b) => f32(a + b);

function elementwise(rule) {
  return ({ inputs: [a, b], args, y, x, c, log }) => {
    const [p, q] = [a.wrapped(y, x, c), b.wrapped(y, x, c)];
    log.push(["first operand", p], ["second operand", q]);
    const v = f32(rule(p, q));
    log.push(["the result, rounded once", v]);
    return activate(v, args.activation, log);
  };
}

const place = ({ output, y, x, c }) => (y * output.width + x) * output.channels + c;

function integerPair(rule) {
  return (job) => {
    const { inputs: [a, b], args: { p }, y, x, c, log } = job;
    return rule(big(a.wrapped(y, x, c)), big(b.wrapped(y, x, c)), p, ruleAt(place(job), p.rule), log);
  };
}

function mean(job) {
  const { args: { p }, c, log } = job;
  const [acc] = summed(job, plainAdd);
  const rule = ruleAt(c, p.rule);
  if (rule === 4 || rule === FLOAT32_FUSED) {
    const [sum, factor] = [f32(acc), f32(p.scale)];
    const real = rule === 4 ? f32(f32(sum * factor) + p.real_offset) : fma32(sum, factor, p.real_offset);
    log.push([`× ${factor} + ${p.real_offset} in float32${rule === 4 ? "" : ", rounded once"}`, real]);
    return clamped(BigInt(rint(clamp(real, -2147483648, 2147483520))), p, log);
  }
  const start = big(acc) + big(p.start);
  log.push([`+ ${p.start}, the zero points of all pixels`, start]);
  const v = requantize(start, big(p.multiplier), big(p.shift), p.scale, rule, log);
  return finish(v, { ...p, zero_point: p.offset }, log);
}

function lookup(job) {
  const { inputs: [a], args, log } = job;
  const v = a.flat(place(job));
  log.push(["the input", v]);
  const result = Number(args.tables[ruleAt(place(job), args.which)][v & 255]);
  log.push([`entry ${v & 255} of the layer's table of 256 results`, result]);
  return result;
}

const [QUOTIENT32, RECIPROCAL] = [11, 12];

function quantizeFloat(job) {
  const { inputs: [a], args, log } = job;
  const v = a.flat(place(job));
  const rule = ruleAt(place(job), args.rule);
  let steps;
  if (rule === QUOTIENT32) steps = roundAway(f32(v / args.scale));
  else if (rule === RECIPROCAL) steps = rint(f32(v * f32(1 / args.scale)));
  else steps = roundAway(clamp(v / args.scale, -16777216, 16777216));
  log.push(["the input", v], [`in steps of ${args.scale}, rounded`, steps]);
  const [zero, low, high] = args.limits;
  const result = clamp(steps, low - zero, high - zero) + zero;
  log.push([`+ zero point ${zero}, held within ${low} … ${high}`, result]);
  return result;
}

function rowOf({ inputs: [a], y, x }) {
  return Array.from({ length: a.channels }, (_, i) => a.get(y, x, i));
}

function softmaxFloat(job) {
  const { args, c, log } = job;
  const row = rowOf(job);
  const largest = row.reduce((m, v) => (v > m ? v : m));
  const e = row.map((v) => exp32(f32(f32(v - largest) * args.beta)));
  const total = e.reduce((sum, v) => f32(sum + v), 0);
  log.push(["the input", row[c]], ["the largest of all classes", largest], ["exp(input − largest)", e[c]]);
  log.push(["the sum of all classes' exp", total], ["their quotient", f32(e[c] / total)]);
  return f32(e[c] / total);
}

function padded({ inputs: [a], args, y, x, c }) {
  const [iy, ix] = [y - args.pad[0], x - args.pad[1]];
  const inside = iy >= 0 && iy < a.height && ix >= 0 && ix < a.width;
  return inside ? a.get(iy, ix, c) : args.value || 0;
}

function concatenated(job) {
  const { layer, inputs, output, steps, log } = job;
  const axis = layer.attrs.axis;
  const inner = output.shape.slice(axis + 1).reduce((n, d) => n * d, 1);
  const flat = place(job);
  const [outer, rest] = [Math.floor(flat / (inner * output.shape[axis])), flat % (inner * output.shape[axis])];
  let at = Math.floor(rest / inner);
  let which = 0;
  while (at >= inputs[which].shape[axis]) at -= inputs[which++].shape[axis];
  const v = inputs[which].flat((outer * inputs[which].shape[axis] + at) * inner + (rest % inner));
  log.push([`operand ${which}`, v]);
  const { p, activation } = steps[which].args;
  if (!p) return activate(v, activation, log);
  if (p.copy) return v;
  const real = f32(f32(f32(v) * p.scale) + p.bias);
  log.push([`× ${p.scale} + ${p.bias} in float32`, real]);
  return finish(big(roundAway(real)), p, log);
}

// By a kernel's name. What isn't here is shown without being recomputed.
const KERNELS = {
  conv2d_f32: accumulate, conv2d_q: accumulate, pointwise_conv2d_f32: accumulate, pointwise_conv2d_q: accumulate,
  depthwise_conv2d_f32: accumulate, depthwise_conv2d_q: accumulate, fully_connected_f32: accumulate,
  fully_connected_q: accumulate,
  add_f32: elementwise((a, b) => a + b), sub_f32: elementwise((a, b) => a - b), mul_f32: elementwise((a, b) => a * b),
  add_q: integerPair(sumOf),
  mul_q: integerPair(productOf),
  average_pool_f32: (job) => {
    const [acc, count] = summed(job, floatAdd);
    const v = f32(acc / Math.max(count, 1));
    job.log.push(["divided by their number", v]);
    return activate(v, job.args.activation, job.log);
  },
  average_pool_q: (job) => {
    const [acc, count] = summed(job, plainAdd);
    const { p } = job.args;
    const size = Math.floor((Math.abs(acc) + Math.floor(count / 2)) / Math.max(count, 1));
    const v = count === 0 ? p.zero_point : acc >= 0 ? size : -size;
    job.log.push(["divided by their number, ties away from zero", v]);
    return clamped(big(v), p, job.log);
  },
  mean_f32: (job) => {
    const [acc, count] = summed(job, floatAdd);
    return f32(acc / f32(count));
  },
  mean_q: mean,
  activation_f32: (job) => {
    const v = job.inputs[0].flat(place(job));
    job.log.push(["the input", v]);
    return activate(v, job.args.activation, job.log);
  },
  lookup_q: lookup,
  quantize_q: quantizeFloat,
  softmax_f32: softmaxFloat,
  softmax_fixed_q: (job) => softmaxFixed(rowOf(job), job.c, job.args, job.log),
  softmax_float_q: (job) => softmaxFloatTable(rowOf(job), job.c, job.args, job.log),
  softmax_lut_q: (job) => softmaxLut(rowOf(job), job.c, job.args, job.log),
  pad_f32: padded, pad_q: padded,
  reshape_f32: (job) => job.inputs[0].flat(place(job)),
  reshape_q: (job) => job.inputs[0].flat(place(job)),
  concat_f32: concatenated, concat_q: concatenated,
};

// {value, log, terms}, or null where the page doesn't know the layer's kernel.
function recompute(layer, steps, inputs, output, y, x, c) {
  const rule = KERNELS[steps[0].kernel];
  if (!rule || (steps.length > 1 && rule !== concatenated)) return null;
  const job = { layer, steps, args: steps[0].args, inputs, output, y, x, c, log: [] };
  job.value = Number(rule(job));
  return job;
}

// Whether two numbers of a tensor's dtype are the same: by bits, so that -0 is not 0; any NaN is NaN.
function sameValue(a, b) {
  return Object.is(a, b);
}

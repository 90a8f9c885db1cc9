// The page: what is chosen, what is drawn, what is written. Text from the model reaches the page as text only.
"use strict";

const model = JSON.parse(document.getElementById("document").textContent);
const $ = (id) => document.getElementById(id);
const ARRAYS = { float32: Float32Array, uint8: Uint8Array, int8: Int8Array, int32: Int32Array };
const ROWS = 64; // terms listed before one asks for all
const chosen = { layer: 0, y: 0, x: 0, c: 0, dialect: model.dialect };

function element(name, text, attributes = {}) {
  const made = document.createElement(name);
  if (text !== undefined) made.textContent = text;
  for (const [key, value] of Object.entries(attributes)) made.setAttribute(key, value);
  return made;
}

// -- where values come from ------------------------------------------------------------------------------------------

// A character is seven bits: explore_page.py says which.
function fromText(text) {
  const bytes = new Uint8Array((text.length * 7) >> 3);
  let word = 0;
  let bits = 0;
  let at = 0;
  for (let i = 0; i < text.length; i++) {
    word = ((word & 127) << 7) | (text.charCodeAt(i) & 127);
    bits += 7;
    if (bits >= 8) bytes[at++] = word >> (bits -= 8);
  }
  return bytes;
}

async function inflated(bytes) {
  const stream = new Blob([bytes]).stream().pipeThrough(new DecompressionStream("deflate"));
  return new Uint8Array(await new Response(stream).arrayBuffer());
}

async function bytesOf(key) {
  const kept = $(`blob-${key}`);
  if (kept) return inflated(fromText(kept.textContent));
  const answer = await fetch(`blob/${key}`);
  if (!answer.ok) throw new Error(await answer.text());
  return inflated(new Uint8Array(await answer.arrayBuffer()));
}

// 8-bit values as they are; of wider ones which aren't 0, and of those first all lowest bytes, then the next ones.
function unpacked(bytes, dtype, size) {
  if (ARRAYS[dtype].BYTES_PER_ELEMENT === 1) return bytes;
  const words = new Uint32Array(size);
  const start = (size + 7) >> 3;
  const kept = (bytes.length - start) / 4;
  for (let i = 0, at = start; i < size; i++) {
    if (!((bytes[i >> 3] >> (7 - (i & 7))) & 1)) continue;
    words[i] = bytes[at] | (bytes[at + kept] << 8) | (bytes[at + 2 * kept] << 16) | (bytes[at + 3 * kept] << 24);
    at++;
  }
  return words;
}

const cache = new Map();
function once(key, make) {
  if (!cache.has(key)) cache.set(key, make());
  return cache.get(key);
}

// A tensor's values under a dialect. All but the first dialect's are kept as differences from these.
async function load(index, dialect) {
  const tensor = model.tensors[index];
  const size = tensor.shape.reduce((n, d) => n * d, 1);
  let words = unpacked(await bytesOf(tensor.constant ? `c${index}` : `v${index}.0`), tensor.dtype, size);
  if (dialect > 0 && !tensor.constant) {
    const differences = unpacked(await bytesOf(`v${index}.${dialect}`), tensor.dtype, size);
    words = words.map((v, i) => v + differences[i]);
  }
  return new Values(tensor, new ARRAYS[tensor.dtype](words.buffer));
}

const values = (index, dialect) => once(`${index}.${dialect}`, () => load(index, dialect));

// What a layer's kernels are given under each dialect: from the document, or asked for.
async function stepsOf(i, dialect) {
  const found = await once(`layer ${i}`, async () => {
    if (model.layers[i].steps) return model.layers[i].steps;
    const answer = await fetch(`layer/${i}`);
    if (!answer.ok) throw new Error(await answer.text());
    return answer.json();
  });
  return found.variants[found.dialects[dialect]];
}

// -- colours and canvases --------------------------------------------------------------------------------------------

function colour(name) {
  const text = getComputedStyle(document.documentElement).getPropertyValue(name).trim();
  return [1, 3, 5].map((i) => parseInt(text.slice(i, i + 2), 16));
}

function zeroPoint(tensor) {
  return tensor.zero_point === null ? 0 : tensor.zero_point;
}

// The largest |real value| of a layer, in its own units; what is brightest.
function reach(found, zero) {
  let most = 0;
  for (const v of found.data) if (Math.abs(v - zero) > most) most = Math.abs(v - zero);
  return most || 1;
}

function drawn(found, c, tensor, most) {
  const [zero, plus, minus] = ["--zero", "--plus", "--minus"].map(colour);
  const canvas = element("canvas", undefined, { width: found.width, height: found.height });
  const image = new ImageData(found.width, found.height);
  const middle = zeroPoint(tensor);
  for (let i = 0; i < found.pixels; i++) {
    const t = (found.data[c * found.pixels + i] - middle) / most;
    const end = t < 0 ? minus : plus;
    const share = Math.sqrt(Math.min(Math.abs(t), 1));
    for (let k = 0; k < 3; k++) image.data[4 * i + k] = zero[k] + (end[k] - zero[k]) * share;
    image.data[4 * i + 3] = 255;
  }
  canvas.getContext("2d").putImageData(image, 0, 0);
  return canvas;
}

function tileSize(found) {
  const side = Math.max(found.height, found.width);
  const scale = side > 72 ? 64 / side : Math.max(1, Math.floor((side > 20 ? 64 : side > 2 ? 40 : 18) / side));
  return [Math.max(Math.round(found.width * scale), 2), Math.max(Math.round(found.height * scale), 2)];
}

function paintChannels(found, tensor, most) {
  const canvas = $("channels");
  const [w, h] = tileSize(found);
  const room = Math.max(canvas.parentElement.clientWidth - 12, 60);
  const columns = Math.max(1, Math.min(found.channels, Math.floor(room / (w + 3))));
  canvas.width = columns * (w + 3);
  canvas.height = Math.ceil(found.channels / columns) * (h + 3);
  canvas.style.width = `${canvas.width}px`;
  const context = canvas.getContext("2d");
  context.imageSmoothingEnabled = w < found.width;
  for (let c = 0; c < found.channels; c++) {
    const [left, top] = [(c % columns) * (w + 3) + 1, Math.floor(c / columns) * (h + 3) + 1];
    context.drawImage(drawn(found, c, tensor, most), left, top, w, h);
    if (c === chosen.c) frame(context, left - 1, top - 1, w + 2, h + 2, "--accent");
  }
  Object.assign(canvas, { columns, tile: [w + 3, h + 3] });
}

function frame(context, x, y, w, h, name) {
  context.strokeStyle = getComputedStyle(document.documentElement).getPropertyValue(name);
  context.lineWidth = 2;
  context.strokeRect(x + 1, y + 1, Math.max(w - 2, 1), Math.max(h - 2, 1));
}

// One channel, enlarged, with a frame around some pixels: [y0, x0, y1, x1].
function paintMap(canvas, found, tensor, c, most, area, width) {
  const side = Math.max(found.height, found.width);
  const scale = Math.max(1, Math.min(Math.floor(width / side), 40));
  canvas.width = found.width * scale;
  canvas.height = found.height * scale;
  const context = canvas.getContext("2d");
  context.imageSmoothingEnabled = false;
  context.drawImage(drawn(found, c, tensor, most), 0, 0, canvas.width, canvas.height);
  const [y0, x0, y1, x1] = area;
  frame(context, x0 * scale - 1, y0 * scale - 1, (x1 - x0) * scale + 2, (y1 - y0) * scale + 2, "--ink");
}

// -- words -----------------------------------------------------------------------------------------------------------

// A float32 as the shortest decimal that gives it back; whole numbers as they are.
function number(v, dtype) {
  if (typeof v === "bigint" || dtype !== "float32" || !Number.isFinite(v)) return String(v);
  for (let digits = 1; digits < 10; digits++) {
    const text = v.toPrecision(digits);
    if (f32(Number(text)) === v) return Object.is(v, -0) ? "-0" : String(Number(text));
  }
  return String(v);
}

const dtypeOf = (v) => (typeof v === "bigint" || Number.isInteger(v) ? "int" : "float32");
const shapeText = (shape) => shape.slice(1).join("×") || "1";
const macText = (macs) => (macs ? `${(macs / 1e6).toFixed(macs < 1e6 ? 2 : 1)} M MACs` : "");

const scaleText = (scale) => (f32(scale) === scale ? number(scale, "float32") : String(scale));

function real(v, tensor) {
  if (tensor.scale === null) return "";
  const value = number(f32((v - tensor.zero_point) * tensor.scale), "float32");
  return `stands for ${value} = ${scaleText(tensor.scale)} × (${v} − ${tensor.zero_point})`;
}

function grid(caption, rows, dtype) {
  const table = element("table");
  for (const row of rows) {
    const line = table.insertRow();
    for (const v of row) {
      const cell = line.insertCell();
      cell.textContent = v === null ? "outside" : number(v, dtype);
      if (v === null) cell.className = "out";
    }
  }
  const figure = element("figure");
  figure.append(element("figcaption", caption), table);
  return figure;
}

// Three squares for a filter that reads one channel.
function writeGrids(job, layer, weights) {
  const rows = (pick) =>
    Array.from({ length: weights.shape[0] }, (_, ky) =>
      Array.from({ length: weights.shape[1] }, (_, kx) => {
        const found = job.terms.find((t) => t.at[0] === ky && t.at[1] === kx);
        return found ? pick(found) : null;
      }),
    );
  const box = element("div", undefined, { class: "grids" });
  const dtype = weights.dtype;
  box.append(grid("window", rows((t) => t.x), dtype), grid("weights", rows((t) => t.w), dtype));
  const zeros = job.args.zero_points;
  const caption = zeros ? `(x − ${zeros[0]}) × (w − ${zeros[1]})` : "sum after each";
  box.append(grid(caption, rows((t) => (zeros ? t.product : t.sum)), dtype));
  $("window").append(element("h3", "Window, weights, products"), box);
}

function writeTerms(job, all) {
  const zeros = job.args.zero_points;
  const heads = ["filter", "x", "weight", zeros ? "product" : "", "sum"].filter(Boolean);
  const table = element("table");
  const head = table.createTHead().insertRow();
  for (const text of heads) head.append(element("th", text));
  const body = table.createTBody();
  const dtype = zeros ? "int" : "float32";
  for (const t of job.terms.slice(0, all ? undefined : ROWS)) {
    const line = body.insertRow();
    const cells = [t.at.join(","), number(t.x, dtype), number(t.w, dtype)];
    if (zeros) cells.push(t.product);
    for (const text of [...cells, number(t.sum, dtype)]) line.insertCell().textContent = text;
  }
  const box = element("div", undefined, { class: "list", tabindex: "0", role: "region", "aria-label": "all terms" });
  box.append(table);
  const place = $("terms");
  place.replaceChildren(element("h3", `All ${job.terms.length} terms`), box);
  if (zeros) place.append(element("p", `product = (x − ${zeros[0]}) × (weight − ${zeros[1]}); the sum begins with the bias`, { class: "hint" }));
  if (!all && job.terms.length > ROWS) {
    const button = element("button", `show all ${job.terms.length}`, { type: "button" });
    button.onclick = () => writeTerms(job, true);
    place.append(button);
  }
}

function writeSteps(job, dtype) {
  const body = $("steps").tBodies[0];
  body.replaceChildren();
  for (const [text, v] of job ? job.log : []) {
    const line = body.insertRow();
    line.insertCell().textContent = text;
    line.insertCell().textContent = number(v, typeof v === "number" && dtype === "float32" ? "float32" : dtypeOf(v));
  }
}

function writeVerdict(job, engine, dtype) {
  const verdict = $("verdict");
  if (!job) {
    verdict.textContent = "This page doesn't recompute this op; `npmobilenet golden explain` derives its values.";
    verdict.removeAttribute("data-same");
    return;
  }
  const same = sameValue(job.value, engine);
  verdict.dataset.same = same;
  const [mine, theirs] = [number(job.value, dtype), number(engine, dtype)];
  verdict.textContent = same
    ? `✓ Recomputed in this browser: ${mine}, the same as the engine's ${theirs}, to the bit.`
    : `✗ Recomputed in this browser: ${mine}; the engine has ${theirs}.`;
}

// -- what is chosen ---------------------------------------------------------------------------------------------------

let turn = 0;
// Draws and writes everything for what is chosen. Resolves when it stands there, or a later call has taken over.
async function show() {
  const mine = ++turn;
  const layer = model.layers[chosen.layer];
  const tensor = model.tensors[layer.output];
  const dialect = chosen.dialect;
  const wanted = [layer.output, ...layer.inputs].map((i) => values(i, dialect));
  let found, inputs, steps;
  try {
    [found, ...inputs] = await Promise.all(wanted);
    steps = layer.op === "input" ? null : await stepsOf(chosen.layer, dialect);
  } catch (error) {
    cache.clear();
    $("verdict").textContent = `This layer could not be loaded: ${error.message}`;
    return;
  }
  if (mine !== turn) return;
  chosen.y = Math.min(Math.max(chosen.y, 0), found.height - 1);
  chosen.x = Math.min(Math.max(chosen.x, 0), found.width - 1);
  chosen.c = Math.min(Math.max(chosen.c, 0), found.channels - 1);
  const { y, x, c } = chosen;
  const most = reach(found, zeroPoint(tensor));
  writeLayer(layer, tensor, found, most);
  paintChannels(found, tensor, most);
  $("channel").textContent = `Channel ${c} of ${found.channels}`;
  paintMap($("map"), found, tensor, c, most, [y, x, y + 1, x + 1], Math.min($("map").parentElement.clientWidth - 4, 420));
  for (const [id, most_] of [["y", found.height], ["x", found.width], ["c", found.channels]]) {
    $(id).value = chosen[id];
    $(id).max = most_ - 1;
  }
  writeValue(layer, tensor, found, inputs, steps);
}

function writeLayer(layer, tensor, found, most) {
  $("layer").textContent = layer.name;
  const q = tensor.scale === null ? "" : `, scale ${scaleText(tensor.scale)}, zero point ${tensor.zero_point}`;
  const work = layer.macs ? `; ${macText(layer.macs)}, ${layer.params.toLocaleString("en")} parameters` : "";
  $("shape").textContent = `${layer.op}: ${tensor.dtype} ${shapeText(tensor.shape)}${q}${work}`;
  const end = number(tensor.scale === null ? most : f32(most * tensor.scale), "float32");
  const signed = found.data.some((v) => v < zeroPoint(tensor));
  document.querySelector(".ramp").dataset.signed = signed;
  $("range").textContent = `${signed ? `−${end}` : 0} to ${end}`;
}

function writeValue(layer, tensor, found, inputs, steps) {
  const { y, x, c } = chosen;
  const engine = found.get(y, x, c);
  const dtype = tensor.dtype;
  const at = tensor.shape.length === 4 ? `[0, ${y}, ${x}, ${c}]` : `[0, ${c}]`;
  $("value").textContent = `${at} = ${number(engine, dtype)}`;
  $("window").replaceChildren(element("p", real(engine, tensor), { class: "hint" }));
  $("terms").replaceChildren();
  if (!steps) {
    writeSteps(null);
    $("verdict").removeAttribute("data-same");
    $("verdict").textContent = "The input: nothing computes it.";
    $("source").textContent = "";
    return;
  }
  const job = recompute(layer, steps, inputs, found, y, x, c);
  const area = inputs[0].pixels > 1 && windowOf(layer, inputs[0], y, x, inputs[1]);
  if (area && layer.op !== "reshape" && layer.op !== "concat") showBefore(layer, inputs[0], area, c, found);
  if (job && job.terms) {
    if (layer.op === "depthwise_conv2d") writeGrids(job, layer, inputs[1]);
    writeTerms(job, false);
  }
  writeSteps(job, dtype);
  writeVerdict(job, engine, dtype);
  $("source").textContent = steps[0].rule ? `Rule "${steps[0].rule}": ${steps[0].source}` : "";
}

// The layer before, with the window that the value reads.
function showBefore(layer, source, area, c, found) {
  const tensor = model.tensors[layer.inputs[0]];
  const from = source.channels === found.channels ? c : Math.floor(c / Math.max(found.channels / source.channels, 1));
  const channel = layer.op === "conv2d" ? 0 : Math.min(from, source.channels - 1);
  const canvas = element("canvas", undefined, { role: "img", "aria-label": "the window in the layer before" });
  paintMap(canvas, source, tensor, channel, reach(source, zeroPoint(tensor)), area, 160);
  const figure = element("figure");
  const all = layer.op === "conv2d" ? `; all ${source.channels} channels are read, this is the first` : "";
  figure.append(element("figcaption", `The layer before, ${tensor.name}, and what is read of it${all}`), canvas);
  figure.style.margin = "0";
  $("window").append(figure);
}

function pick(change) {
  Object.assign(chosen, change);
  return (settled = show());
}
let settled = Promise.resolve();

function pickLayer(i, focus) {
  const tabs = $("strip").children;
  for (const [k, tab] of [...tabs].entries()) {
    tab.setAttribute("aria-selected", k === i);
    tab.tabIndex = k === i ? 0 : -1;
  }
  if (focus) tabs[i].focus();
  tabs[i].scrollIntoView({ block: "nearest", inline: "nearest" });
  return pick({ layer: i });
}

function makeStrip() {
  const most = Math.max(...model.layers.map((l) => l.macs), 1);
  model.layers.forEach((layer, i) => {
    const button = element("button", undefined, { role: "tab", type: "button", title: layer.name });
    const bar = element("i");
    bar.style.setProperty("--share", `${(100 * layer.macs) / most}%`);
    const name = element("b");
    for (const piece of layer.short.split(/(?<=[/_.])/)) name.append(piece, element("wbr"));
    button.append(name, element("span", layer.op), element("span", shapeText(model.tensors[layer.output].shape)), element("span", macText(layer.macs) || "–"), bar);
    button.onclick = () => pickLayer(i);
    $("strip").append(button);
  });
  $("strip").onkeydown = (event) => {
    const step = { ArrowRight: 1, ArrowLeft: -1, Home: -chosen.layer, End: model.layers.length - 1 - chosen.layer }[event.key];
    if (step === undefined) return;
    event.preventDefault();
    pickLayer(Math.min(Math.max(chosen.layer + step, 0), model.layers.length - 1), true);
  };
}

function inCanvas(canvas, event) {
  const box = canvas.getBoundingClientRect();
  const scale = (canvas.width / (box.width - 2 * canvas.clientLeft)) || 1;
  return [event.clientX - box.left - canvas.clientLeft, event.clientY - box.top - canvas.clientTop].map((v) => v * scale);
}

function listen() {
  $("channels").onclick = (event) => {
    const canvas = $("channels");
    const [left, top] = inCanvas(canvas, event);
    const [w, h] = canvas.tile;
    const { height, width } = { height: h - 3, width: w - 3 };
    const c = Math.floor(top / h) * canvas.columns + Math.min(Math.floor(left / w), canvas.columns - 1);
    values(model.layers[chosen.layer].output, chosen.dialect).then((found) => {
      if (c >= found.channels) return;
      pick({ c, y: Math.floor((((top % h) - 1) / height) * found.height), x: Math.floor((((left % w) - 1) / width) * found.width) });
    });
  };
  $("map").onclick = (event) => {
    const canvas = $("map");
    const [left, top] = inCanvas(canvas, event);
    values(model.layers[chosen.layer].output, chosen.dialect).then((found) =>
      pick({ x: Math.floor((left / canvas.width) * found.width), y: Math.floor((top / canvas.height) * found.height) }),
    );
  };
  $("map").onkeydown = (event) => {
    const [name, step] = { ArrowRight: ["x", 1], ArrowLeft: ["x", -1], ArrowDown: ["y", 1], ArrowUp: ["y", -1], PageDown: ["c", 1], PageUp: ["c", -1] }[event.key] || [];
    if (!name) return;
    event.preventDefault();
    pick({ [name]: chosen[name] + step });
  };
  $("channels").onkeydown = (event) => {
    const columns = $("channels").columns;
    const step = { ArrowRight: 1, ArrowLeft: -1, ArrowDown: columns, ArrowUp: -columns }[event.key];
    if (step === undefined) return;
    event.preventDefault();
    pick({ c: chosen.c + step });
  };
  for (const id of ["y", "x", "c"]) $(id).onchange = () => pick({ [id]: Math.floor(Number($(id).value)) || 0 });
  $("index").onsubmit = (event) => event.preventDefault();
  $("theme").onchange = () => {
    document.documentElement.dataset.theme = $("theme").value;
    show();
  };
  $("dialect").onchange = () => {
    pick({ dialect: Number($("dialect").value) });
    writeBest();
  };
  addEventListener("hashchange", () => location.reload());
  matchMedia("(prefers-color-scheme: dark)").onchange = () => show();
  let width = innerWidth;
  addEventListener("resize", () => {
    if (innerWidth !== width) show();
    width = innerWidth;
  });
}

async function writeBest() {
  const tensor = model.tensors[model.output];
  const list = $("best");
  list.replaceChildren();
  if (!model.labels.length) return;
  const found = await values(model.output, chosen.dialect);
  const scores = Array.from(found.data, (v) => (tensor.scale === null ? v : f32((v - tensor.zero_point) * tensor.scale)));
  const order = scores.map((_, i) => i).sort((a, b) => scores[b] - scores[a] || a - b);
  list.replaceChildren(...order.slice(0, 3).map((i) => element("li", `${model.labels[i] || i} ${scores[i].toFixed(4)}`)));
}

async function paintPicture() {
  const found = await values(model.layers[0].output, 0);
  const canvas = $("picture");
  canvas.width = found.width;
  canvas.height = found.height;
  let [low, high] = [Infinity, -Infinity];
  for (const v of found.data) [low, high] = [Math.min(low, v), Math.max(high, v)];
  const image = new ImageData(found.width, found.height);
  for (let i = 0; i < found.pixels; i++) {
    for (let k = 0; k < 3; k++) image.data[4 * i + k] = (255 * (found.data[(k % found.channels) * found.pixels + i] - low)) / (high - low || 1);
    image.data[4 * i + 3] = 255;
  }
  canvas.getContext("2d").putImageData(image, 0, 0);
}

function start() {
  $("title").textContent = `${model.model} looks at ${model.picture}`;
  $("about").textContent = `${model.layers.length - 1} layers, ${macText(model.layers.reduce((n, l) => n + l.macs, 0))}. Choose a layer, then a value: this page recomputes it from the layer before and compares. npmobilenet ${model.version}`;
  if (model.dialects.length < 2) $("dialects").hidden = true;
  model.dialects.forEach((d, i) => {
    const option = element("option", d.refuses ? `${d.name} (refuses)` : d.name, { value: i, title: d.refuses || d.runtime });
    option.disabled = Boolean(d.refuses);
    $("dialect").append(option);
  });
  const asked = Number(/^#dialect=(\d+)$/.exec(location.hash)?.[1]); // page.html#dialect=1 begins with the second
  if (model.dialects[asked] && !model.dialects[asked].refuses) chosen.dialect = asked;
  $("dialect").value = chosen.dialect;
  makeStrip();
  listen();
  paintPicture();
  writeBest();
  const first = Math.min(2, model.layers.length - 1); // with a window to look at
  const [height, width] = model.tensors[model.layers[first].output].shape.slice(1, 3);
  Object.assign(chosen, { y: (height || 0) >> 1, x: (width || 0) >> 1 });
  pickLayer(first);
}

start();

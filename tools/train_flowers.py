"""Train the five-flower MobileNet V2 that ships in the package, from scratch, on a CPU.

    python tools/train_flowers.py --data PATH/flowers144.npz --out weights.npz

The data file holds JPEG bytes, labels and class names (arrays ``{train,val}_{jpeg,offsets,
labels,names}`` and ``classes``; image i is ``jpeg[offsets[i]:offsets[i + 1]]``).  The output is
an ``.npz`` with TF-slim's variable names and layouts, so that the package can build the network
by its name ("mobilenet_v2" with the depth multiplier given here) and load it.  Beside it are
written ``<out>_log.json`` (one row per epoch) and ``<out>_val_probabilities.npz``.

The network is TF-slim's MobileNet V2 to the letter: "SAME" padding that puts the odd pixel at
the bottom and right, batch-norm epsilon 0.001, channel counts rounded by ``make_divisible``, an
unscaled last convolution ("finegrain") when the multiplier is below one.  PyTorch pads both
sides alike, which differs from TF at stride 2 on even sizes, but only by a mirror: turning image
and kernels by 180 degrees makes the two the same for every input size.  So the module turns its
input, trains turned kernels with plain symmetric padding (no padding copy), and the import and
export functions turn the kernels back.

Each core trains its own half of the batch in its own thread with shared weights; gradients are
averaged before the optimizer's step.  That is faster than splitting every single operation over
the cores, and batch-norm then works on half batches.  ``docs/training.md`` has the recipe and
its results.  Needs PyTorch, NumPy and Pillow; PyTorch is a dependency of this tool alone.
"""

# mypy: disable-error-code="misc, untyped-decorator"
# (PyTorch is not installed where the package is type-checked)
from __future__ import annotations

import argparse
import copy
import ctypes
import io
import itertools
import json
import math
import shutil
import subprocess
import tempfile
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch import Tensor, nn
from torch.nn import functional

CANVAS = 192  # every training image is kept at CANVAS x CANVAS, aspect ratio noted beside
# (expansion factor, output channels, stride) of each block of MobileNet V2
BLOCKS = (
    [(1, 16, 1), (6, 24, 2), (6, 24, 1), (6, 32, 2), (6, 32, 1), (6, 32, 1)]
    + [(6, 64, 2)] + [(6, 64, 1)] * 3 + [(6, 96, 1)] * 3
    + [(6, 160, 2), (6, 160, 1), (6, 160, 1), (6, 320, 1)]
)  # fmt: skip


# ------------------------------------------------------------------------------- network


def make_divisible(value: float, divisor: int = 8) -> int:
    """Round to a multiple of ``divisor`` without falling below 90 % of ``value``."""
    rounded = max(divisor, int(value + divisor / 2) // divisor * divisor)
    return rounded + divisor if rounded < 0.9 * value else rounded


# Batch norm and relu6 in two passes each way, where PyTorch takes about seven over memory.
# Rows are pixels of all images, columns channels (NHWC); sums run in float by 64 rows at a time.
FUSED_SOURCE = r"""
#include <math.h>
#include <string.h>
void forward(const float *restrict x, long n, int c, const float *restrict gamma,
             const float *restrict beta, float eps, float top, float *restrict y,
             float *restrict mean, float *restrict var, float *restrict inv) {
  double total[c], square[c]; float s[c], q[c], a[c], b[c];
  for (int j = 0; j < c; j++) total[j] = square[j] = 0;
  for (long i = 0; i < n; i += 64) {
    memset(s, 0, sizeof s); memset(q, 0, sizeof q);
    for (long k = i; k < n && k < i + 64; k++)
      for (int j = 0; j < c; j++) { float v = x[k * c + j]; s[j] += v; q[j] += v * v; }
    for (int j = 0; j < c; j++) { total[j] += s[j]; square[j] += q[j]; }
  }
  for (int j = 0; j < c; j++) {
    double m = total[j] / n, v = square[j] / n - m * m;
    mean[j] = m; var[j] = v > 0 ? v : 0; inv[j] = 1 / sqrt(var[j] + eps);
    a[j] = gamma[j] * inv[j]; b[j] = beta[j] - mean[j] * a[j];
  }
  float low = top > 0 ? 0 : -INFINITY, high = top > 0 ? top : INFINITY;
  for (long k = 0; k < n; k++)
    for (int j = 0; j < c; j++) {
      float v = x[k * c + j] * a[j] + b[j];
      v = v < low ? low : v; y[k * c + j] = v > high ? high : v;
    }
}
void backward(const float *restrict x, const float *restrict g, long n, int c,
              const float *restrict gamma, const float *restrict beta,
              const float *restrict mean, const float *restrict inv, float top,
              float *restrict dx, float *restrict dgamma, float *restrict dbeta) {
  double tg[c], tx[c]; float s[c], q[c], a[c], b[c], u[c], w[c];
  for (int j = 0; j < c; j++) {
    tg[j] = tx[j] = 0; a[j] = gamma[j] * inv[j]; b[j] = beta[j] - mean[j] * a[j];
  }
  float low = top > 0 ? 0 : -INFINITY, high = top > 0 ? top : INFINITY;
  for (long i = 0; i < n; i += 64) {
    memset(s, 0, sizeof s); memset(q, 0, sizeof q);
    for (long k = i; k < n && k < i + 64; k++)
      for (int j = 0; j < c; j++) {
        float z = x[k * c + j], v = z * a[j] + b[j];
        float h = (v > low) & (v < high) ? g[k * c + j] : 0.0f;
        s[j] += h; q[j] += h * (z - mean[j]);
      }
    for (int j = 0; j < c; j++) { tg[j] += s[j]; tx[j] += q[j]; }
  }
  for (int j = 0; j < c; j++) {
    dbeta[j] = tg[j]; dgamma[j] = tx[j] * inv[j];
    w[j] = -a[j] * inv[j] * dgamma[j] / n; u[j] = -a[j] * dbeta[j] / n - mean[j] * w[j];
  }
  for (long k = 0; k < n; k++)
    for (int j = 0; j < c; j++) {
      float z = x[k * c + j], v = z * a[j] + b[j];
      float h = (v > low) & (v < high) ? g[k * c + j] : 0.0f;
      dx[k * c + j] = a[j] * h + z * w[j] + u[j];
    }
}
"""


def build_fused() -> ctypes.CDLL | None:
    """Compile the fused kernels with the C compiler at hand; None (PyTorch's own) without."""
    compiler = shutil.which("gcc") or shutil.which("clang")
    if compiler is None:
        return None
    with tempfile.TemporaryDirectory() as folder:
        source, library = Path(folder, "fused.c"), Path(folder, "fused.so")
        source.write_text(FUSED_SOURCE, encoding="utf-8", newline="\n")
        flags = ["-O3", "-march=native", "-ffp-contract=fast", "-fno-math-errno",
                 "-fno-trapping-math", "-shared", "-fPIC"]  # fmt: skip
        subprocess.run([compiler, *flags, str(source), "-o", str(library), "-lm"], check=True)
        return ctypes.CDLL(str(library))


FUSED = build_fused()


def call(function: str, *args: Tensor | int | float) -> None:
    """Call a fused kernel: tensors as pointers, the first int as a long."""
    assert FUSED is not None
    kinds: dict[type, Any] = {int: ctypes.c_long, float: ctypes.c_float}
    getattr(FUSED, function)(*(
        ctypes.c_void_p(a.data_ptr()) if isinstance(a, Tensor) else kinds[type(a)](a)
        for a in args
    ))  # fmt: skip


class FusedNorm(torch.autograd.Function):
    """Training-mode batch norm followed by a clamp to [0, top] (none when top is 0)."""

    @staticmethod
    def forward(
        ctx: Any, x: Tensor, gamma: Tensor, beta: Tensor, eps: float, top: float
    ) -> tuple[Tensor, Tensor, Tensor]:
        """Output, batch mean and batch variance."""
        x = x.contiguous(memory_format=torch.channels_last)
        c, y = x.shape[1], torch.empty_like(x)
        mean, var, inv = x.new_empty(c), x.new_empty(c), x.new_empty(c)
        n = x.numel() // c
        call("forward", x, n, c, gamma, beta, eps, top, y, mean, var, inv)
        ctx.save_for_backward(x, gamma, beta, mean, inv)
        ctx.top = top
        ctx.mark_non_differentiable(mean, var)
        return y, mean, var

    @staticmethod
    def backward(ctx: Any, g: Tensor, *_: Tensor) -> tuple[Tensor | None, ...]:
        """Gradients of x, gamma and beta."""
        x, gamma, beta, mean, inv = ctx.saved_tensors
        g = g.contiguous(memory_format=torch.channels_last)
        c, dx = x.shape[1], torch.empty_like(x)
        dgamma, dbeta = torch.empty_like(gamma), torch.empty_like(beta)
        call("backward", x, g, x.numel() // c, c, gamma, beta, mean, inv, ctx.top,
             dx, dgamma, dbeta)  # fmt: skip
        return dx, dgamma, dbeta, None, None


class ConvBN(nn.Sequential):
    """Convolution, batch norm and, unless ``linear``, relu6."""

    def __init__(
        self, cin: int, cout: int, kernel: int, stride: int = 1, groups: int = 1,
        linear: bool = False,
    ) -> None:  # fmt: skip
        conv = nn.Conv2d(cin, cout, kernel, stride, kernel // 2, groups=groups, bias=False)
        nn.init.kaiming_normal_(conv.weight, mode="fan_in" if groups > 1 else "fan_out")
        norm = nn.BatchNorm2d(cout, eps=1e-3, momentum=0.03)
        super().__init__(conv, norm, nn.Identity() if linear else nn.ReLU6())

    def forward(self, x: Tensor) -> Tensor:
        """Apply the layer, with the fused kernels while training."""
        norm = self[1]
        if FUSED is None or not self.training:
            return super().forward(x)
        top = 6.0 if isinstance(self[2], nn.ReLU6) else 0.0
        y, mean, var = FusedNorm.apply(self[0](x), norm.weight, norm.bias, norm.eps, top)
        with torch.no_grad():
            norm.running_mean.lerp_(mean, norm.momentum)
            norm.running_var.lerp_(var, norm.momentum)
        return y


class Block(nn.Module):
    """Inverted residual: expand (if wider), depthwise, project; identity where shapes agree."""

    def __init__(self, cin: int, cout: int, stride: int, factor: int) -> None:
        super().__init__()
        width = make_divisible(cin * factor, 1 if factor == 1 else 8)
        self.expand = ConvBN(cin, width, 1) if width > cin else None
        self.depthwise = ConvBN(width, width, 3, stride, groups=width)
        self.project = ConvBN(width, cout, 1, linear=True)
        self.residual = stride == 1 and cin == cout
        if self.residual:  # every such block starts as the identity
            nn.init.zeros_(self.project[1].weight)

    def forward(self, x: Tensor) -> Tensor:
        """Apply the block."""
        y = x if self.expand is None else self.expand(x)
        y = self.project(self.depthwise(y))
        return x + y if self.residual else y


class MobileNetV2(nn.Module):
    """MobileNet V2 as TF-slim builds it, holding every spatial kernel turned by 180 degrees."""

    def __init__(self, multiplier: float, classes: int) -> None:
        super().__init__()
        channels = make_divisible(32 * multiplier)
        self.first = ConvBN(3, channels, 3, 2)
        blocks = []
        for factor, full, stride in BLOCKS:
            cout = make_divisible(full * multiplier)
            blocks.append(Block(channels, cout, stride, factor))
            channels = cout
        self.blocks = nn.ModuleList(blocks)
        width = make_divisible(1280 * max(1.0, multiplier))
        self.last = ConvBN(channels, width, 1)
        self.logits = nn.Linear(width, classes)
        nn.init.normal_(self.logits.weight, std=0.01)
        nn.init.zeros_(self.logits.bias)

    def forward(self, x: Tensor, keep: Tensor | None = None) -> Tensor:
        """Logits of images in [-1, 1], NCHW; ``keep`` is an optional dropout mask."""
        x = self.first(x.flip(2, 3).contiguous(memory_format=torch.channels_last))
        for block in self.blocks:
            x = block(x)
        x = self.last(x).mean((2, 3))
        return self.logits(x if keep is None else x * keep)

    def slim_layers(self) -> dict[str, ConvBN]:
        """TF-slim's scope of every convolution that has batch norm."""
        layers = {"Conv": self.first, "Conv_1": self.last}
        for i, block in enumerate(self.blocks):
            scope = "expanded_conv" + (f"_{i}" if i else "")
            if block.expand is not None:
                layers[f"{scope}/expand"] = block.expand
            layers[f"{scope}/depthwise"] = block.depthwise
            layers[f"{scope}/project"] = block.project
        return layers


def to_slim(model: MobileNetV2) -> dict[str, Any]:
    """The model's weights under TF-slim's names and in its layouts (HWIO, depthwise HWC1)."""
    out = {}
    for scope, layer in model.slim_layers().items():
        conv, norm = layer[0], layer[1]
        kernel = conv.weight.detach().flip(2, 3)
        depthwise = conv.groups > 1
        name = "depthwise_weights" if depthwise else "weights"
        out[f"MobilenetV2/{scope}/{name}"] = kernel.permute(*((2, 3, 0, 1) if depthwise
                                                              else (2, 3, 1, 0)))  # fmt: skip
        for key, value in (("gamma", norm.weight), ("beta", norm.bias),
                           ("moving_mean", norm.running_mean),
                           ("moving_variance", norm.running_var)):  # fmt: skip
            out[f"MobilenetV2/{scope}/BatchNorm/{key}"] = value.detach()
    head = "MobilenetV2/Logits/Conv2d_1c_1x1"
    out[f"{head}/weights"] = model.logits.weight.detach().t()[None, None]
    out[f"{head}/biases"] = model.logits.bias.detach()
    return {k: np.ascontiguousarray(v.numpy(), dtype=np.float32) for k, v in out.items()}


def from_slim(model: MobileNetV2, weights: dict[str, Any]) -> None:
    """Load what :func:`to_slim` (or a TF-slim checkpoint) holds; names must agree exactly."""
    mine = to_slim(model)
    if set(mine) != set(weights):
        raise ValueError(f"names differ: {sorted(set(mine) ^ set(weights))}")
    value = {k: torch.from_numpy(np.array(v, dtype=np.float32)) for k, v in weights.items()}
    with torch.no_grad():
        for scope, layer in model.slim_layers().items():
            conv, norm, name = layer[0], layer[1], f"MobilenetV2/{scope}"
            if conv.groups > 1:
                kernel = value[f"{name}/depthwise_weights"].permute(2, 3, 0, 1)
            else:
                kernel = value[f"{name}/weights"].permute(3, 2, 0, 1)
            conv.weight.copy_(kernel.flip(2, 3))
            norm.weight.copy_(value[f"{name}/BatchNorm/gamma"])
            norm.bias.copy_(value[f"{name}/BatchNorm/beta"])
            norm.running_mean.copy_(value[f"{name}/BatchNorm/moving_mean"])
            norm.running_var.copy_(value[f"{name}/BatchNorm/moving_variance"])
        head = "MobilenetV2/Logits/Conv2d_1c_1x1"
        model.logits.weight.copy_(value[f"{head}/weights"][0, 0].t())
        model.logits.bias.copy_(value[f"{head}/biases"])


# ------------------------------------------------------------------- images and evaluation


def decode(data: np.lib.npyio.NpzFile, split: str) -> tuple[list[Image.Image], np.ndarray]:
    """All images of a split, decoded, and their labels."""
    jpeg, offsets = data[f"{split}_jpeg"], data[f"{split}_offsets"]
    images = []
    for a, b in itertools.pairwise(offsets):
        images.append(Image.open(io.BytesIO(jpeg[a:b].tobytes())).convert("RGB"))
    return images, data[f"{split}_labels"].astype(np.int64)


def legacy_bilinear(image: np.ndarray, size: int) -> np.ndarray:
    """TF1's bilinear resize: source = target * in / out, no half pixel, no antialiasing."""

    def taps(n: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        at = np.arange(size, dtype=np.float32) * np.float32(n / size)
        low = np.floor(at).astype(np.int64)
        return low, np.minimum(low + 1, n - 1), at - low.astype(np.float32)

    y0, y1, fy = taps(image.shape[0])
    x0, x1, fx = taps(image.shape[1])
    fy, fx = fy[:, None, None], fx[None, :, None]
    top = image[y0][:, x0] + (image[y0][:, x1] - image[y0][:, x0]) * fx
    bottom = image[y1][:, x0] + (image[y1][:, x1] - image[y1][:, x0]) * fx
    out: np.ndarray = top + (bottom - top) * fy
    return out


def preprocess(image: np.ndarray, size: int, crop: bool) -> np.ndarray:
    """uint8 HWC to float32 in [-1, 1]: TF-slim's evaluation recipe, or the whole image."""
    if not crop:
        return legacy_bilinear(image.astype(np.float32), size) / np.float32(127.5) - np.float32(1)
    h, w = image.shape[:2]
    y, x = int((h - h * 0.875) / 2), int((w - w * 0.875) / 2)
    pixels = image[y : h - y, x : w - x].astype(np.float32) * np.float32(1 / 255)
    return (legacy_bilinear(pixels, size) - np.float32(0.5)) * np.float32(2)


def eval_batch(images: list[Image.Image], size: int, crop: bool) -> Tensor:
    """Preprocessed images as one NCHW tensor."""
    batch = np.stack([preprocess(np.asarray(im), size, crop) for im in images])
    return torch.from_numpy(batch).permute(0, 3, 1, 2)


@torch.no_grad()
def probabilities(model: MobileNetV2, pool: ThreadPoolExecutor, x: Tensor) -> Tensor:
    """Class probabilities of all images, computed in chunks on the pool's threads."""
    model.eval()

    def run(chunk: Tensor) -> Tensor:
        with torch.no_grad():
            return model(chunk).softmax(1)

    return torch.cat(list(pool.map(run, x.split(46))))


# --------------------------------------------------------------------------- augmentation


class Augment:
    """Random crops, turns, colours, erasing and mixing of a batch, vectorised in torch."""

    def __init__(self, images: Tensor, aspect: Tensor, labels: Tensor, classes: int, seed: int):
        self.images, self.aspect, self.labels, self.classes = images, aspect, labels, classes
        self.rng = torch.Generator().manual_seed(seed)
        self.size, self.source = 0, images

    def uniform(self, low: float, high: float, *shape: int) -> Tensor:
        """Random numbers from this instance's own generator."""
        return torch.rand(*shape, generator=self.rng) * (high - low) + low

    def crop(self, pick: Tensor, size: int, min_area: float) -> Tensor:
        """Random resized crop, mirror, turn up to 30 degrees (half the time), one resampling."""
        n, aspect = len(pick), self.aspect[pick]
        area = self.uniform(min_area, 1.0, n)
        ratio = torch.exp(self.uniform(math.log(3 / 4), math.log(4 / 3), n))
        # widths and heights in units of the image's, from an area and a true aspect ratio
        w = (area * ratio / aspect).sqrt().clamp(max=1.0)
        h = (area / ratio * aspect).sqrt().clamp(max=1.0)
        cx = self.uniform(-1, 1, n) * (1 - w)
        cy = self.uniform(-1, 1, n) * (1 - h)
        mirror = (self.uniform(0, 1, n) < 0.5).float() * 2 - 1
        turn = self.uniform(-math.pi / 6, math.pi / 6, n) * (self.uniform(0, 1, n) < 0.5)
        cos, sin = turn.cos(), turn.sin()
        theta = torch.stack([
            torch.stack([w * cos * mirror, -h * sin / aspect, cx], 1),
            torch.stack([w * sin * aspect * mirror, h * cos, cy], 1),
        ], 1)  # fmt: skip
        grid = functional.affine_grid(theta, [n, 3, size, size], align_corners=False)
        pixels = self.source[pick].float()
        return functional.grid_sample(pixels, grid, padding_mode="reflection", align_corners=False)

    def colour(self, x: Tensor) -> Tensor:
        """Contrast and saturation +-40 %, brightness +-0.3, a little hue; one in twenty in grey."""
        n, size = len(x), x.shape[-1]
        x = x / 127.5 - 1
        yiq = torch.tensor([[0.299, 0.587, 0.114], [0.596, -0.274, -0.322], [0.211, -0.523, 0.312]])
        saturation = self.uniform(0.6, 1.4, n) * (self.uniform(0, 1, n) > 0.05)
        hue = self.uniform(-0.15, 0.15, n)
        gain = self.uniform(0.6, 1.4, n)
        c, s = saturation * hue.cos(), saturation * hue.sin()
        one, nil = torch.ones(n), torch.zeros(n)
        middle = torch.stack([one, nil, nil, nil, c, -s, nil, s, c], 1).view(n, 3, 3)
        matrix = torch.linalg.inv(yiq) @ middle @ yiq * gain[:, None, None]
        mean = x.mean((1, 2, 3))
        shift = mean * (1 - gain) + self.uniform(-0.3, 0.3, n)
        x = torch.bmm(matrix, x.view(n, 3, -1)) + shift[:, None, None]
        return x.clamp_(-1, 1).view(n, 3, size, size)

    def rectangle(self, n: int, size: int, area: Tensor) -> Tensor:
        """Boolean masks (n, 1, size, size) of random rectangles of the given areas, clipped."""
        ratio = torch.exp(self.uniform(-0.7, 0.7, n))
        h, w = (area * ratio).sqrt() * size, (area / ratio).sqrt() * size
        cy, cx = self.uniform(0, size, n), self.uniform(0, size, n)
        at = torch.arange(size) + 0.5
        rows = (at[None] - cy[:, None]).abs() < h[:, None] / 2
        cols = (at[None] - cx[:, None]).abs() < w[:, None] / 2
        return (rows[:, :, None] & cols[:, None, :])[:, None]

    def __call__(self, pick: Tensor, size: int, mixing: bool) -> tuple[Tensor, Tensor]:
        """Images in [-1, 1] and soft targets for the picked training images."""
        n = len(pick)
        if size != self.size:  # smaller sources are enough, and faster, for smaller crops
            side = min(CANVAS, size * 3 // 2)
            parts = [functional.interpolate(p.float(), (side, side), mode="area").round().byte()
                     for p in self.images.split(64)]  # fmt: skip
            self.size, self.source = size, torch.cat(parts)
        x = self.colour(self.crop(pick, size, 0.25 if mixing else 0.35))
        target = functional.one_hot(self.labels[pick], self.classes).float()
        target = target * 0.9 + 0.1 / self.classes  # label smoothing
        erase = self.rectangle(n, size, self.uniform(0.02, 0.2, n))
        erase &= (self.uniform(0, 1, n) < 0.25)[:, None, None, None]
        x = x.masked_fill(erase, 0.0)
        choice = float(self.uniform(0, 1, 1)) if mixing else 1.0
        if choice < 0.3:  # CutMix: a rectangle of the next image in the batch
            mask = self.rectangle(n, size, self.uniform(0.05, 0.6, n)).float()
            keep = 1 - mask.mean((1, 2, 3))
            x = x + (x.roll(1, 0) - x) * mask
        elif choice < 0.6:  # mixup
            keep = 1 - 0.5 * self.uniform(0, 1, n) ** 2
            x = x + (x.roll(1, 0) - x) * (1 - keep)[:, None, None, None]
        else:
            return x, target
        return x, target * keep[:, None] + target.roll(1, 0) * (1 - keep)[:, None]


# ------------------------------------------------------------------------------- training


class Replicas:
    """One copy of the model per thread, all sharing the first one's parameters."""

    def __init__(self, model: MobileNetV2, augment: list[Augment], pool: ThreadPoolExecutor):
        self.pool, self.augment, self.models = pool, augment, [model]
        for _ in augment[1:]:
            replica = copy.deepcopy(model)
            for mine, shared in zip(replica.parameters(), model.parameters(), strict=True):
                mine.data = shared.data
            self.models.append(replica)

    def step(self, pick: Tensor, size: int, mixing: bool, dropout: float) -> float:
        """Mean loss of one batch; leaves the mean gradient in the first model's parameters."""

        def work(model: MobileNetV2, augment: Augment, part: Tensor) -> float:
            model.train()
            model.zero_grad(set_to_none=True)
            x, target = augment(part, size, mixing)
            keep = augment.uniform(0, 1, len(part), model.logits.in_features) >= dropout
            loss = functional.cross_entropy(model(x, keep.float() / (1 - dropout)), target)
            loss.backward()
            return float(loss.detach())

        losses = list(self.pool.map(work, self.models, self.augment, pick.chunk(len(self.models))))
        for ps in zip(*(m.parameters() for m in self.models), strict=True):
            ps[0].grad = torch.stack([p.grad for p in ps]).mean(0)
        return sum(losses) / len(losses)


def tune_malloc() -> None:
    """Keep freed memory in the process: fresh pages for every activation cost a third."""
    try:
        libc = ctypes.CDLL("libc.so.6")
        for option, value in ((-4, 0), (-1, 2**31 - 1), (-2, 2**28), (-8, 1)):
            libc.mallopt(option, value)
    except (OSError, AttributeError):
        pass  # another C library: slower, otherwise the same


def build_parser() -> argparse.ArgumentParser:
    """The command line."""
    p = argparse.ArgumentParser(description=__doc__.split("\n\n")[0])
    p.add_argument("--data", required=True, help="flowers144.npz")
    p.add_argument("--out", required=True, type=Path, help="weights to write (.npz)")
    p.add_argument("--init", type=Path, help="weights that this tool wrote, to go on from (a warm restart)")
    p.add_argument("--multiplier", type=float, default=0.5, help="depth multiplier")
    p.add_argument("--epochs", type=int, default=182)
    p.add_argument("--minutes", type=float, help="a schedule by the clock instead of --epochs")
    p.add_argument("--sizes", default="64,80,96,112", help="training sizes, changing over time")
    p.add_argument("--size-from", default="0,0.2,0.5,0.8", help="progress where each begins")
    p.add_argument("--eval-size", type=int, default=128)
    p.add_argument("--batch", type=int, default=64)
    p.add_argument("--lr", type=float, default=3e-3)
    p.add_argument("--weight-decay", type=float, default=0.1)
    p.add_argument("--dropout", type=float, default=0.2)
    p.add_argument("--ema", type=float, default=0.996, help="decay per step of the average")
    p.add_argument("--mix-until", type=float, default=0.8, help="progress where mixing ends")
    p.add_argument("--eval-every", type=int, default=5, help="epochs between evaluations")
    p.add_argument("--threads", type=int, default=2)
    p.add_argument("--seed", type=int, default=0)
    return p


def main() -> None:
    """Train, evaluate, write."""
    args = build_parser().parse_args()
    tune_malloc()
    torch.set_num_threads(1)
    torch.manual_seed(args.seed)
    pool = ThreadPoolExecutor(args.threads, initializer=torch.set_num_threads, initargs=(1,))
    data = np.load(args.data)
    classes = [str(c) for c in data["classes"]]
    train, labels = decode(data, "train")
    aspect = torch.tensor([im.width / im.height for im in train])
    canvas = np.stack([np.asarray(im.resize((CANVAS, CANVAS), Image.BICUBIC)) for im in train])
    images = torch.from_numpy(canvas).permute(0, 3, 1, 2).contiguous()
    held, held_labels = decode(data, "val")
    held_x, held_y = eval_batch(held, args.eval_size, crop=True), torch.from_numpy(held_labels)

    model = MobileNetV2(args.multiplier, len(classes)).to(memory_format=torch.channels_last)
    if args.init:
        with np.load(args.init, allow_pickle=False) as weights:
            from_slim(model, {name: weights[name] for name in weights.files})
    average = copy.deepcopy(model)
    augment = [
        Augment(images, aspect, torch.from_numpy(labels), len(classes), args.seed * 1000 + i)
        for i in range(args.threads)
    ]
    replicas = Replicas(model, augment, pool)
    dense = (m for m in model.modules() if isinstance(m, nn.Linear | nn.Conv2d))
    decayed = [m.weight for m in dense if isinstance(m, nn.Linear) or m.groups == 1]
    others = [p for p in model.parameters() if all(p is not q for q in decayed)]
    groups = [
        {"params": decayed, "weight_decay": args.weight_decay},
        {"params": others, "weight_decay": 0.0},
    ]
    optimizer = torch.optim.AdamW(groups, lr=args.lr, fused=True)
    sizes = [int(s) for s in args.sizes.split(",")]
    begins = [float(s) for s in args.size_from.split(",")]
    order = torch.Generator().manual_seed(args.seed)
    log: list[dict[str, float | int | None]] = []
    best, steps, epoch, progress, start = 0.0, 0, 0, 0.0, time.time()
    per_epoch = len(train) // args.batch

    while progress < 1.0:
        total, began = 0.0, time.time()
        for batch, pick in enumerate(torch.randperm(len(train), generator=order)
                                     [: per_epoch * args.batch].split(args.batch)):  # fmt: skip
            if args.minutes:
                progress = min(1.0, (time.time() - start) / 60 / args.minutes)
            else:
                progress = (epoch + batch / per_epoch) / args.epochs
            size = [s for s, b in zip(sizes, begins, strict=True) if progress >= b][-1]
            lr = args.lr * min(1.0, progress / 0.02 + 0.01)
            lr *= 0.5 * (1 + math.cos(math.pi * progress)) + 1e-3
            for group in optimizer.param_groups:
                group["lr"] = lr
            total += replicas.step(pick, size, progress < args.mix_until, args.dropout)
            optimizer.step()
            steps += 1
            rate = 1 - min(args.ema, steps / (steps + 20))
            with torch.no_grad():
                for mine, new in zip(average.state_dict().values(), model.state_dict().values(),
                                     strict=True):  # fmt: skip
                    if mine.is_floating_point():
                        mine.lerp_(new, rate)
        epoch += 1
        if not args.minutes:
            progress = epoch / args.epochs
        row: dict[str, float | int | None] = {
            "epoch": epoch, "progress": round(progress, 4), "size": size, "lr": lr,
            "train_loss": total / per_epoch, "val_loss": None, "val_accuracy": None,
            "seconds": round(time.time() - began, 2), "minutes": (time.time() - start) / 60,
        }  # fmt: skip
        if epoch % args.eval_every == 0 or progress >= 1.0:
            p = probabilities(average, pool, held_x)
            accuracy = float((p.argmax(1) == held_y).float().mean())
            row["val_loss"] = float(functional.nll_loss(p.clamp_min(1e-12).log(), held_y))
            row["val_accuracy"] = accuracy
            np.savez(args.out, **to_slim(average))
            if accuracy > best:
                best = accuracy
                np.savez(args.out.with_name(args.out.stem + "_best.npz"), **to_slim(average))
        log.append(row)
        args.out.with_name(args.out.stem + "_log.json").write_text(
            json.dumps(log, indent=0), encoding="utf-8", newline="\n"
        )
        val = "" if row["val_accuracy"] is None else f" val {row['val_accuracy']:.4f}"
        print(f"epoch {epoch:3d} {100 * progress:5.1f} % {size} px lr {lr:.2e} "
              f"loss {row['train_loss']:.4f}{val} {row['seconds']:.1f} s", flush=True)  # fmt: skip

    p = probabilities(average, pool, held_x)
    whole = probabilities(average, pool, eval_batch(held, args.eval_size, crop=False))
    np.savez(args.out.with_name(args.out.stem + "_val_probabilities.npz"),
             probabilities=p.numpy(), predictions=p.argmax(1).numpy(), labels=held_labels,
             whole_image_probabilities=whole.numpy(), classes=np.array(classes))  # fmt: skip
    print(f"{args.eval_size} px: crop {float((p.argmax(1) == held_y).float().mean()):.4f}, "
          f"whole image {float((whole.argmax(1) == held_y).float().mean()):.4f}")  # fmt: skip


if __name__ == "__main__":
    main()

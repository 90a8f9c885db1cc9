"""The models of timm and torchvision: which table, width, padding, epsilon and recipe each name stands for.

A name is `timm/mobilenetv2_110d`, `torchvision/mobilenet_v2`, or timm's with a tag (`mobilenetv3_large_100.ra_in1k`).
The architectures are the tables of this room; what differs is said here.

Sources: huggingface/pytorch-image-models 1.0.31 timm/models/efficientnet.py (_gen_mobilenet_v1, _gen_mobilenet_v2,
_gen_mobilenet_edgetpu), timm/models/mobilenetv3.py (_gen_mobilenet_v3_rw, _gen_mobilenet_v3, _gen_mobilenet_v4) and
their default_cfgs; timm/models/_efficientnet_builder.py; pytorch/vision 0.29.1 torchvision/models/mobilenetv2.py and
mobilenetv3.py.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass, replace
from types import MappingProxyType

from npmobilenet.errors import ModelNotFound, nearest
from npmobilenet.graph import Graph
from npmobilenet.zoo import SPECS
from npmobilenet.zoo.build import build
from npmobilenet.zoo.rows import Conv, Fused, Invert, Row, Spec, make_divisible

TORCH_EPSILON, TF_EPSILON = 1e-5, 1e-3  # torch.nn.BatchNorm2d's default; TensorFlow's, which ports keep

# How many rows of a table each of timm's stages has (`blocks.0`, `blocks.1`, ...), after the first convolution.
_STAGES = {
    "v1": (1, 2, 2, 6, 2),
    "v2": (1, 2, 3, 4, 3, 3, 1),
    "v3_large": (1, 2, 3, 4, 2, 3, 1),
    "v3_small": (1, 2, 3, 2, 3, 1),
    "edgetpu": (1, 4, 4, 4, 4, 4, 1),
    "v4_conv_small": (2, 2, 6, 6, 1),
    "v4_conv_medium": (1, 2, 8, 11, 1),
    "v4_conv_large": (1, 2, 11, 13, 1),
}


@dataclass(frozen=True, kw_only=True)
class TorchModel:
    """A name of timm or torchvision. `depth` multiplies the rows of each stage; `recipe` is one of images/recipes.py.

    `same`: TensorFlow's SAME padding instead of `(k - 1) / 2` on each side. `fixed`: the first and last convolution
    keep their widths, the first and last stage their rows, at any multiplier. `lone`: V3 without the layer between the
    pool and the classifier.
    """

    name: str
    family: str
    multiplier: float = 1.0
    depth: float = 1.0
    fixed: bool = False
    lone: bool = False
    same: bool = False
    epsilon: float = TORCH_EPSILON
    recipe: str = "timm_bicubic"
    resolution: int = 224

    @property
    def package(self) -> str:
        """Which package names it: timm or torchvision."""
        return self.name.partition("/")[0]

    @property
    def bare(self) -> str:
        """Its name within the package."""
        return self.name.partition("/")[2]

    @property
    def scaled(self) -> bool:
        """Whether `layout` has the widths themselves, not those at multiplier 1."""
        return self.package == "torchvision" and self.family.startswith("v3")

    def layout(self) -> tuple[Spec, tuple[int, ...]]:
        """The table as this model has it, and how many of its rows each of timm's stages has."""
        table = self.family.removesuffix("_minimalistic")
        spec, stages = SPECS[self.family], _STAGES[table]
        spec = replace(spec, se_gate="hard_sigmoid", width=make_divisible, finegrain=spec.finegrain or "unscaled")
        rows = spec.rows
        if self.bare == "mobilenetv1_100h":
            rows = (*rows, Conv(k=1, out=1024))
        if self.family == "edgetpu":  # timm has an activation behind the lone projection
            rows = tuple(Conv(k=1, out=r.out) if isinstance(r, Fused) and r.expand == 1 else r for r in rows)
        if self.bare == "mobilenetv3_rw":  # rounds the squeeze to whole numbers; its first block adds nothing
            first = tuple(
                replace(r, residual=False) if isinstance(r, Invert) and i == 1 else r for i, r in enumerate(rows)
            )
            spec, rows = replace(spec, se_width=_rounded_quarter, se_act=""), first
        if table.startswith("v3") and self.package == "timm":
            spec = replace(spec, scale_first_from=0.75)
        if self.scaled:
            rows = _scaled(rows, self.multiplier)[: -1 if self.lone else None]
        if self.fixed:
            spec = replace(spec, scale_first_from=math.inf, finegrain="unscaled")
        if self.depth != 1:
            rows, stages = _deepened(rows, stages, self.depth, self.fixed)
        return replace(spec, rows=rows), stages

    def graph(
        self, num_classes: int = 1000, resolution: int | tuple[int, int] | None = None, channels: int = 3
    ) -> Graph:
        """Its graph. Raises `GraphError` for a resolution that doesn't fit."""
        spec, _ = self.layout()
        narrow = self.multiplier < 1 or self.fixed or self.family.startswith("v3")
        return build(
            spec, depth_multiplier=1.0 if self.scaled else self.multiplier,
            resolution=resolution or self.resolution, num_classes=num_classes,
            finegrain=narrow and self.family != "v1", use_explicit_padding=not self.same, global_pool=True,
            in_channels=channels, name=self.name,
        )  # fmt: skip


def _rounded_quarter(channels: int) -> int:
    return round(channels * 0.25)


def _scaled(rows: tuple[Row, ...], multiplier: float) -> tuple[Row, ...]:
    """The rows at a multiplier as torchvision scales them: the inner widths as numbers, not as factors.

    Source: torchvision/models/mobilenetv3.py, InvertedResidualConfig, MobileNetV3 (lastconv_output_channels).
    """
    made: list[Row] = []
    before = after = 0  # channels of the row above: in the table, and scaled
    for index, row in enumerate(rows):
        if isinstance(row, Invert):
            inner = make_divisible(make_divisible(row.expand * before, row.expand_divisible_by) * multiplier)
            expand = inner / after
            before, after = row.out, make_divisible(row.out * multiplier)
            made.append(replace(row, out=after, expand=expand))
        elif isinstance(row, Conv):
            before, after = row.out, 6 * after if row.bn and index else make_divisible(row.out * multiplier)
            made.append(replace(row, out=after))
        else:
            made.append(row)
    return tuple(made)


def _deepened(
    rows: tuple[Row, ...], stages: tuple[int, ...], depth: float, fixed: bool
) -> tuple[tuple[Row, ...], tuple[int, ...]]:
    """Repeat the rows of each stage, ceil(depth * rows) in all; `fixed`: but for the first and last stage.

    The repeats go to runs of equal rows in proportion, from the last to the first.
    Source: timm/models/_efficientnet_builder.py, _scale_stage_depth.
    """
    made: list[Row] = [rows[0]]
    counts = []
    at = 1
    for number, count in enumerate(stages):
        runs: list[list[Row]] = []
        for row in rows[at : at + count]:
            if runs and _again(runs[-1][-1]) == row:
                runs[-1].append(row)
            else:
                runs.append([row])
        at += count
        left, scaled = count, count if fixed and number in (0, len(stages) - 1) else math.ceil(count * depth)
        repeats: list[int] = []
        for run in reversed(runs):
            repeats.insert(0, max(1, round(len(run) / left * scaled)))
            left, scaled = left - len(run), scaled - repeats[0]
        for run, repeat in zip(runs, repeats, strict=True):
            made += [run[0], *[_again(run[0])] * (repeat - 1)]
        counts.append(sum(repeats))
    return (*made, *rows[at:]), tuple(counts)


def _again(row: Row) -> Row:
    """The row that follows one in a run: its stride is 1."""
    return replace(row, s=1) if isinstance(row, (Conv, Invert)) else row


def _timm() -> Iterator[TorchModel]:
    def row(name: str, family: str, multiplier: float = 1.0, **more: object) -> TorchModel:
        return TorchModel(name=f"timm/{name}", family=family, multiplier=multiplier, **more)  # type: ignore[arg-type]

    half = "timm_half_bicubic"
    yield row("mobilenetv1_100", "v1", recipe=half)
    yield row("mobilenetv1_100h", "v1", recipe=half)
    yield row("mobilenetv1_125", "v1", 1.25, recipe="timm_half_bicubic_90")
    for percent in (35, 50, 75, 100, 140):
        yield row(f"mobilenetv2_{percent:03d}", "v2", percent / 100)
    yield row("mobilenetv2_110d", "v2", 1.1, depth=1.2, fixed=True)
    yield row("mobilenetv2_120d", "v2", 1.2, depth=1.4, fixed=True)
    yield row("mobilenetv3_large_075", "v3_large", 0.75, recipe="torchvision")
    yield row("mobilenetv3_large_100", "v3_large")
    for percent in (50, 75, 100):
        yield row(f"mobilenetv3_small_{percent:03d}", "v3_small", percent / 100)
    yield row("mobilenetv3_large_150d", "v3_large", 1.5, depth=1.2, recipe="timm_half_95", resolution=256)
    yield row("mobilenetv3_rw", "v3_large", epsilon=TF_EPSILON)
    for size in ("large", "small"):
        for kind, tail, percent in (("", "", 75), ("", "", 100), ("_minimal", "_minimalistic", 100)):
            yield row(f"tf_mobilenetv3_{size}{kind}_{percent:03d}", f"v3_{size}{tail}", percent / 100, same=True,
                      epsilon=TF_EPSILON, recipe="timm_tf")  # fmt: skip
    yield row("mobilenet_edgetpu_100", "edgetpu", recipe="timm_bicubic_90")
    yield row("mobilenetv4_conv_small_035", "v4_conv_small", 0.35, recipe=half)
    yield row("mobilenetv4_conv_small_050", "v4_conv_small", 0.5, recipe=half)
    yield row("mobilenetv4_conv_small", "v4_conv_small")
    yield row("mobilenetv4_conv_medium", "v4_conv_medium", recipe="timm_bicubic_95", resolution=256)
    yield row("mobilenetv4_conv_large", "v4_conv_large", recipe="timm_bicubic_95", resolution=384)


def _torchvision() -> Iterator[TorchModel]:
    yield TorchModel(name="torchvision/mobilenet_v2", family="v2", recipe="torchvision")
    for size in ("large", "small"):
        yield TorchModel(name=f"torchvision/mobilenet_v3_{size}", family=f"v3_{size}", epsilon=TF_EPSILON,
                         recipe="torchvision")  # fmt: skip


TORCH_MODELS = MappingProxyType({model.name: model for model in (*_timm(), *_torchvision())})

# Tags whose recipe or resolution isn't that of the first tag of their name, which is what a bare name stands for.
_TAGS: dict[str, dict[str, object]] = {
    "mobilenetv3_large_100.ra4_e3600_r224_in1k": {"recipe": "timm_half_bicubic_95"},
    "mobilenetv3_large_100.miil_in21k_ft_in1k": {"recipe": "timm_unit"},
    "mobilenetv3_large_100.miil_in21k": {"recipe": "timm_unit"},
    "mobilenetv4_conv_small.e3600_r256_in1k": {"recipe": "timm_half_bicubic_95", "resolution": 256},
    "mobilenetv4_conv_medium.e500_r224_in1k": {"resolution": 224},
    "mobilenetv4_conv_medium.e250_r384_in12k_ft_in1k": {"resolution": 384},
    "mobilenetv4_conv_medium.e180_r384_in12k": {"recipe": "timm_bicubic_100", "resolution": 384},
    "mobilenetv4_conv_medium.e180_ad_r384_in12k": {"recipe": "timm_bicubic_100", "resolution": 384},
    "mobilenetv4_conv_medium.e250_r384_in12k": {"recipe": "timm_bicubic_100", "resolution": 384},
    "mobilenetv4_conv_large.e500_r256_in1k": {"resolution": 256},
}
# Names of timm that aren't read, by how they begin, and what stands in the way.
_WITHOUT = {
    "mobilenetv4_hybrid": "attention blocks (mobile MQA), which no kernel here computes",
    "mobilenetv4_conv_aa": "anti-aliasing pools",
    "mobilenetv4_conv_blur": "blur pools",
    "mobilenet_edgetpu_v2": "grouped convolutions",
}
_EXPORT = "with PyTorch, export it: litert_torch.convert(model.eval(), (sample,)).export('model.tflite')"


def torch_model(name: str) -> TorchModel:
    """What a name of timm or torchvision stands for; timm's may lack "timm/" and have a tag.

    Raises `ModelNotFound`, with the nearest names, or why a model isn't read.
    """
    key = name.strip().casefold().replace("hf_hub:", "").replace("hf-hub:", "")
    package, _, bare = key.rpartition("/")
    bare = bare.partition("@")[0]
    head = bare.partition(".")[0]
    for known in [package] if package else ["timm", "torchvision"]:
        found = TORCH_MODELS.get(f"{known}/{head}")
        if found is not None:
            return replace(found, **_TAGS.get(bare, {}))  # type: ignore[arg-type]
    reason = next((text for start, text in _WITHOUT.items() if head.startswith(start)), "")
    if reason:
        raise ModelNotFound(f"{name[:80]!r} has {reason}; {_EXPORT}")
    closest = ", ".join(nearest(bare, TORCH_MODELS))
    raise ModelNotFound(
        f"no model of timm or torchvision that is read here is called {name[:80]!r}; closest: {closest}"
    )

"""Make golden data with the original TF-slim MobileNet builders: a checkpoint, its input, and every endpoint.

A maintainer's program, not part of the package. It needs TensorFlow 2.15.1 with tf_slim 1.1.0 and tf_keras, and a
checkout of tensorflow/models, whose folder research/slim (it holds nets/) is given by --slim:

    python tools/make_slim_goldens.py v3-large_224_1.0 mobilenet_v2_1.4_224 \
        --slim models/research/slim --out goldens --images a.bmp b.bmp

Weights are random; gamma, beta and biases are drawn around their usual values; the batch-norm statistics are those of
the given images (random ones without --images), so activations keep a sane size through the whole network. Written
for each model, in a folder named after it and its options:

* `model.ckpt.*`: the checkpoint. With --ema also `/ExponentialMovingAverage` shadows, RMSProp slots and global_step;
  the shadows are what made the golden data and the live variables differ from them.
* `golden.npz`: `input` (N, H, W, 3) in [-1, 1] and `endpoint:NAME` for every endpoint of TF-slim. Endpoints of more
  than 300,000 values hold every 8th row and column only: compare with `[:, ::8, ::8]`.
* `meta.json`: the options and versions.
"""

from __future__ import annotations

import argparse
import importlib
import json
import os
import re
import sys
from collections.abc import Callable
from dataclasses import asdict, dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
os.environ.setdefault("TF_ENABLE_ONEDNN_OPTS", "0")  # plain Eigen kernels: closer to the exact values

SUBSAMPLE_ABOVE = 300_000  # values
V3_TABLES = {
    "v3-large": "V3_LARGE",
    "v3-small": "V3_SMALL",
    "v3-large-minimalistic": "V3_LARGE_MINIMALISTIC",
    "v3-small-minimalistic": "V3_SMALL_MINIMALISTIC",
    "v3-large-detection": "V3_LARGE_DETECTION",
    "v3-small-detection": "V3_SMALL_DETECTION",
    "mobilenet_edgetpu": "V3_EDGETPU",
}


@dataclass(frozen=True)
class Job:
    """One golden folder: the model and the builder's options."""

    name: str
    family: str
    multiplier: float
    size: int
    num_classes: int
    finegrain: bool
    ema: bool
    output_stride: int | None
    explicit_padding: bool
    final_endpoint: str | None
    base_only: bool
    shards: int
    seed: int

    @property
    def folder(self) -> str:
        """The model's name and whatever departs from its defaults."""
        extra = [
            f"_os{self.output_stride}" if self.output_stride else "",
            "_explicit" if self.explicit_padding else "",
            f"_to_{self.final_endpoint}" if self.final_endpoint else "_base" if self.base_only else "",
            f"_{self.num_classes}classes" if self.num_classes != 1001 else "",
            f"_{self.shards}shards" if self.shards > 1 else "",
        ]
        return self.name + "".join(extra)


def parse_name(name: str) -> tuple[str, float, int]:
    """'v3-large_224_0.75' -> ('v3-large', 0.75, 224); 'mobilenet_v2_1.4_224' -> ('mobilenet_v2', 1.4, 224)."""
    found = re.fullmatch(r"(v3-[a-z-]+|mobilenet_edgetpu)_(\d+)_(\d+\.\d+)", name)
    if found and found[1] in V3_TABLES:
        return found[1], float(found[3]), int(found[2])
    found = re.fullmatch(r"(mobilenet_v[12])_(\d+\.\d+)_(\d+)", name)
    if found:
        return found[1], float(found[2]), int(found[3])
    sys.exit(
        f"unknown model name {name!r}; expected mobilenet_v1_0.25_128, mobilenet_v2_1.4_224, "
        f"mobilenet_edgetpu_224_1.0, or {'|'.join(list(V3_TABLES)[:-1])}_224_0.75"
    )


def rename_keras_layers() -> None:
    """tf_slim 1.1.0 imports `tf_keras.legacy_tf_layers`, which tf_keras 2.15 holds below `tf_keras.src` only."""
    try:
        importlib.import_module("tf_keras.src.legacy_tf_layers")
    except ImportError:
        return  # an older set of versions, in which tf_slim finds what it needs
    for part in ("", ".base", ".convolutional", ".core", ".normalization", ".pooling"):
        module = importlib.import_module(f"tf_keras.src.legacy_tf_layers{part}")
        sys.modules[f"tf_keras.legacy_tf_layers{part}"] = module
    tf_keras: Any = importlib.import_module("tf_keras")
    tf_keras.legacy_tf_layers = sys.modules["tf_keras.legacy_tf_layers"]


class Slim:
    """TensorFlow 1 mode and the builders of a research/slim checkout."""

    def __init__(self, folder: Path) -> None:
        sys.path.insert(0, str(folder))
        rename_keras_layers()
        self.tf: Any = importlib.import_module("tensorflow.compat.v1")
        self.tf.disable_v2_behavior()
        self.slim: Any = importlib.import_module("tf_slim")
        self.v1: Any = importlib.import_module("nets.mobilenet_v1")
        self.v2: Any = importlib.import_module("nets.mobilenet.mobilenet_v2")
        self.v3: Any = importlib.import_module("nets.mobilenet.mobilenet_v3")

    def network(self, job: Job, x: Any, fitting: bool) -> dict[str, Any]:
        """Lay out the network on `x`; returns its endpoints.

        `fitting`: batch norm uses the batch's own statistics and its update ops store them (decay 0).
        """
        if job.family == "mobilenet_v1":
            with self.slim.arg_scope(self.v1.mobilenet_v1_arg_scope(is_training=fitting, batch_norm_decay=0.0)):
                return self._v1(job, x, fitting)
        net = self.v2 if job.family == "mobilenet_v2" else self.v3
        options: dict[str, Any] = {"depth_multiplier": job.multiplier, "num_classes": job.num_classes}
        if job.family in V3_TABLES:
            options["conv_defs"] = getattr(self.v3, V3_TABLES[job.family])
        if job.family == "mobilenet_edgetpu":
            options["scope"] = "MobilenetEdgeTPU"
        options.update(
            finegrain_classification_mode=job.finegrain,
            output_stride=job.output_stride,
            use_explicit_padding=job.explicit_padding,
            final_endpoint=job.final_endpoint,
            base_only=job.base_only,
        )
        with self.slim.arg_scope(net.training_scope(is_training=fitting, bn_decay=0.0)):
            return dict(net.mobilenet(x, **options)[1])

    def _v1(self, job: Job, x: Any, fitting: bool) -> dict[str, Any]:
        if job.base_only:
            options = {"final_endpoint": job.final_endpoint} if job.final_endpoint else {}
            _, endpoints = self.v1.mobilenet_v1_base(
                x,
                depth_multiplier=job.multiplier,
                output_stride=job.output_stride,
                use_explicit_padding=job.explicit_padding,
                scope="MobilenetV1",
                **options,
            )
            return dict(endpoints)
        if job.output_stride or job.explicit_padding:
            sys.exit("TF-slim's V1 classifier takes neither --output-stride nor --explicit-padding: add --base-only")
        _, endpoints = self.v1.mobilenet_v1(
            x, depth_multiplier=job.multiplier, num_classes=job.num_classes, is_training=fitting
        )
        return dict(endpoints)

    def images(self, paths: list[Path], size: int, seed: int) -> np.ndarray:
        """The whole images, resized, in [-1, 1]; two of noise where none are given."""
        if not paths:
            return np.random.default_rng(seed).uniform(-1, 1, (2, size, size, 3)).astype(np.float32)
        with self.tf.Graph().as_default(), self.tf.Session() as session:
            batch = []
            for path in paths:
                pixels = self.tf.io.decode_image(path.read_bytes(), channels=3, expand_animations=False)
                resized = self.tf.image.resize_area(pixels[None], (size, size))
                batch.append(session.run(self.tf.clip_by_value(resized / 127.5 - 1, -1, 1))[0])
        return np.stack(batch).astype(np.float32)


def make(slim: Slim, job: Job, images: list[Path], out: Path) -> None:
    """Write one golden folder."""
    tf = slim.tf
    x = slim.images(images, job.size, job.seed)
    folder = out / job.folder
    folder.mkdir(parents=True, exist_ok=True)
    rng = np.random.default_rng(job.seed)
    with tf.Graph().as_default(), tf.device(round_robin(job.shards)):
        tf.set_random_seed(job.seed)
        place = tf.placeholder(tf.float32, x.shape, "x")
        with tf.variable_scope(""):
            slim.network(job, place, fitting=True)
        fit = tf.get_collection(tf.GraphKeys.UPDATE_OPS)
        with tf.variable_scope("", reuse=True):
            endpoints = slim.network(job, place, fitting=False)
        variables = list(tf.trainable_variables())
        moving = [v for v in tf.global_variables() if v not in variables]
        averages = tf.train.ExponentialMovingAverage(0.9999)
        extra = []
        if job.ema:
            extra = [averages.apply(variables), slot_ops(tf, variables)]
        with tf.Session(config=tf.ConfigProto(device_count={"CPU": job.shards})) as session:
            session.run(tf.global_variables_initializer())
            for variable in variables:
                spread(session, variable, rng)
            session.run(fit, {place: x})
            session.run(extra)
            if job.ema:
                for variable in variables:
                    averages.average(variable).load(session.run(variable), session)
            golden = session.run(endpoints, {place: x})
            if job.ema:
                for variable in variables:
                    live = session.run(variable)
                    variable.load(live * rng.uniform(0.8, 1.2, live.shape).astype(np.float32), session)
            check(session.run(moving), golden)
            tf.train.Saver(sharded=job.shards > 1).save(
                session, str(folder / "model.ckpt"), write_meta_graph=False, write_state=False
            )
    arrays: dict[str, Any] = {"input": x, **{f"endpoint:{n}": subsample(a) for n, a in sorted(golden.items())}}
    np.savez_compressed(folder / "golden.npz", **arrays)
    meta = {
        **asdict(job), "images": [p.name for p in images], "tf": tf.__version__, "tf_slim": version("tf_slim"),
        "source": "tensorflow/models research/slim/nets",
        "note": "random weights, batch-norm statistics fitted to the images; endpoints above 3e5 values are stored "
                "at every 8th row and column",
    }  # fmt: skip
    (folder / "meta.json").write_text(json.dumps(meta, indent=1) + "\n", encoding="utf-8", newline="\n")
    print(f"{folder}: {len(golden)} endpoints, largest value {max(np.abs(a).max() for a in golden.values()):.3g}")


def round_robin(shards: int) -> Callable[[Any], str]:
    """A device function that spreads the variables over `shards` CPU devices, one shard of the checkpoint each."""
    count = iter(range(10**9))

    def device(op: Any) -> str:
        return f"/cpu:{next(count) % shards}" if op.type in ("Variable", "VariableV2", "VarHandleOp") else ""

    return device


def slot_ops(tf: Any, variables: list[Any]) -> Any:
    """Optimizer slots and a global step, as a training run leaves them; zero gradients change no weight."""
    optimizer = tf.train.RMSPropOptimizer(0.01, momentum=0.9)
    zeros = [(tf.zeros_like(v), v) for v in variables]
    return optimizer.apply_gradients(zeros, global_step=tf.train.get_or_create_global_step())


def spread(session: Any, variable: Any, rng: np.random.Generator) -> None:
    """Random values of a sane size: gamma near 1, beta near 0, weights that keep the variance."""
    leaf = variable.op.name.rsplit("/", 1)[-1]
    shape = variable.shape.as_list()
    if leaf == "gamma":
        values = rng.uniform(0.7, 1.3, shape)
    elif leaf in ("beta", "biases"):
        values = 0.1 + 0.3 * rng.standard_normal(shape)
    else:
        terms = np.prod(shape[:2] if leaf == "depthwise_weights" else shape[:3])
        values = rng.standard_normal(shape) * np.sqrt(2 / terms)
    variable.load(values.astype(np.float32), session)


def check(moving: list[np.ndarray], golden: dict[str, np.ndarray]) -> None:
    """The statistics are fitted (they start as 0 and 1 exactly), and no endpoint is dead or out of hand."""
    untouched = [s for s in moving if s.ndim == 1 and np.ptp(s) == 0 and s[0] in (0, 1)]
    bad = [n for n, a in golden.items() if not np.isfinite(a).all() or a.std() == 0 or np.abs(a).max() > 1e3]
    if untouched or bad:
        sys.exit(f"{len(untouched)} batch-norm statistics are unfitted; unfit endpoints: {', '.join(bad) or 'none'}")


def subsample(array: np.ndarray) -> np.ndarray:
    """Every 8th row and column of a large endpoint."""
    return array[:, ::8, ::8] if array.ndim == 4 and array.size > SUBSAMPLE_ABOVE else array


def main() -> None:
    """Parse the command line and make what it names."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("names", nargs="+", metavar="NAME", help="v3-large_224_1.0, mobilenet_v2_1.4_224, ...")
    parser.add_argument("--slim", type=Path, required=True, help="folder research/slim of tensorflow/models")
    parser.add_argument("--out", type=Path, required=True, help="folder that receives one folder for each model")
    parser.add_argument("--images", type=Path, nargs="*", default=[], help="images to fit to and to run")
    parser.add_argument("--multiplier", type=float, help="depth multiplier, instead of the name's")
    parser.add_argument("--size", type=int, help="input height and width, instead of the name's")
    parser.add_argument("--num-classes", type=int, default=1001)
    parser.add_argument("--no-finegrain", action="store_true", help="scale the last convolution as well")
    parser.add_argument("--ema", action="store_true", help="with moving averages, slots and global_step")
    parser.add_argument("--output-stride", type=int)
    parser.add_argument("--explicit-padding", action="store_true")
    parser.add_argument("--final-endpoint", help="stop at this layer (implies --base-only)")
    parser.add_argument("--base-only", action="store_true", help="neither pool nor classifier")
    parser.add_argument("--shards", type=int, default=1, help="number of data files")
    parser.add_argument("--seed", type=int, default=1)
    args = parser.parse_args()
    slim = Slim(args.slim)
    for name in args.names:
        family, multiplier, size = parse_name(name)
        multiplier, size = args.multiplier or multiplier, args.size or size
        job = Job(
            name=name, family=family, multiplier=multiplier, size=size, num_classes=args.num_classes,
            finegrain=multiplier < 1 and family != "mobilenet_v1" and not args.no_finegrain, ema=args.ema,
            output_stride=args.output_stride, explicit_padding=args.explicit_padding,
            final_endpoint=args.final_endpoint, base_only=args.base_only or bool(args.final_endpoint),
            shards=args.shards, seed=args.seed,
        )  # fmt: skip
        make(slim, job, args.images, args.out)


if __name__ == "__main__":
    main()

"""Every layer of every published size; and all instruction sets that this CPU has, or less: the same bits."""

from __future__ import annotations

import hashlib
import os
import subprocess
import sys
from collections.abc import Collection
from pathlib import Path

import numba
import numpy as np
import pytest
from cases import arrays_for, arrays_q, q, run_node, run_q, same_bits, single, single_q

from npmobilenet.arithmetic.dialects import DIALECTS
from npmobilenet.graph import Graph, Node
from npmobilenet.kernels import kernel_set
from npmobilenet.kernels.compiler.cpu import ISAS, isas_here
from npmobilenet.zoo import SPECS
from npmobilenet.zoo.build import build
from npmobilenet.zoo.checkpoints import CHECKPOINTS


def layer_shapes(family: str) -> list[tuple[Graph, Node]]:
    """Every distinct node of every published size of a family (of size 224 where none is published)."""
    sizes = {(c.depth_multiplier, c.resolution) for c in CHECKPOINTS if c.family == family} or {(1.0, 224)}
    found: dict[object, tuple[Graph, Node]] = {}
    for multiplier, resolution in sorted(sizes, reverse=True):
        graph = build(SPECS[family], depth_multiplier=multiplier, resolution=resolution)
        for node in graph.nodes:
            shapes = tuple(graph.tensors[n].shape for n in node.inputs)
            found.setdefault((node.op, shapes, tuple(sorted(node.attrs.items()))), (graph, node))
    return list(found.values())


@pytest.mark.equal("zoo", "fast, 1 and 2 threads", "reference, compiled; every layer of every published size", "bits")
@pytest.mark.parametrize("family", SPECS)
def test_fast_equals_reference_on_every_zoo_layer(family: str) -> None:
    rng = np.random.default_rng(20)
    layers = layer_shapes(family)
    assert len(layers) > 20
    for graph, node in layers:
        inputs = arrays_for(graph, node, rng)
        results = []
        for threads in (1, 2):
            numba.set_num_threads(min(threads, numba.config.NUMBA_NUM_THREADS))
            results.append(run_node(graph, node, inputs, "fast"))
        assert same_bits(results[0], results[1]), f"{node.name}: threads"
        assert same_bits(results[0], run_node(graph, node, inputs, "reference")), node.name


@pytest.mark.equal("pointwise_conv2d", "fast, any number of pixels", "reference, compiled", "bits")
@pytest.mark.parametrize("channels", [5, 32])
def test_rows_that_tiles_leave_over(channels: int) -> None:
    """Some are computed again by a tile that begins earlier, unless something is added: it may lie where `out` does."""
    rng, fast = np.random.default_rng(3), kernel_set("fast")
    for rows in range(1, 17):
        graph = single("conv2d", [(1, 1, rows, 7)], [(1, 1, 7, channels), (channels,)], stride=(1, 1),
                       padding=((0, 0), (0, 0)))  # fmt: skip
        x, weights, bias = arrays_for(graph, graph.nodes[0], rng)
        product = run_node(graph, graph.nodes[0], [x, weights, bias], "fast")
        assert same_bits(product, run_node(graph, graph.nodes[0], [x, weights, bias], "reference")), rows
        more = rng.standard_normal((rows, channels), dtype=np.float32)
        out, expected = more if channels == 32 else np.zeros_like(more), product.reshape(more.shape) + more
        packed = fast.pack("pointwise_conv2d_f32", weights.reshape(7, channels))
        fast.pointwise_add_f32(x.reshape(rows, 7), packed, bias, 0, more, out)
        assert same_bits(out, expected), rows


# -- other machines ----------------------------------------------------------------------------------------------------


def digest_f32() -> str:
    """Of what the fast kernels give for a sample of the zoo's layers, large ones left out."""
    found = hashlib.sha256()
    for family in ("v2", "v3_small"):
        for graph, node in layer_shapes(family)[::4]:
            if graph.macs(node) < 2_000_000:
                inputs = arrays_for(graph, node, np.random.default_rng(1))
                found.update(run_node(graph, node, inputs, "fast").tobytes())
    return found.hexdigest()


def digest_products_q() -> str:
    """Of one convolution and one pointwise convolution."""
    return digest_q({("conv2d", "uint8", 3), ("conv2d", "int8", 1)}, list(DIALECTS)[:1])


def digest_q(which: Collection[tuple[str, str, int]] = (), dialects: Collection[str] = tuple(DIALECTS)) -> str:
    """Of what the fast kernels give for some layers of every kind, or for some: (op, type, size of the window)."""
    found = hashlib.sha256()
    rng = np.random.default_rng(1)
    for dtype, zero in (("uint8", 131), ("int8", -3)):
        x, y = q(0.02, zero), q(0.31, zero // 2)
        kind = q(0.03, 120 if dtype == "uint8" else 0)
        for op, shape, weights, attrs in (
            ("conv2d", (1, 9, 11, 3), (3, 3, 3, 40), {"stride": (2, 2), "padding": ((0, 1), (0, 1))}),
            ("conv2d", (1, 20, 20, 24), (1, 1, 24, 70), {"stride": (1, 1), "padding": ((0, 0), (0, 0))}),
            ("depthwise_conv2d", (1, 9, 11, 75), (3, 3, 75), {"stride": (1, 1), "padding": ((1, 1), (1, 1))}),
            ("depthwise_conv2d", (1, 9, 11, 64), (5, 5, 64), {"stride": (2, 2), "padding": ((1, 2), (1, 2))}),
        ):  # fmt: skip
            if which and (op, dtype, weights[0]) not in which:
                continue
            bias = ((weights[-1],), "int32", None)
            graph = single_q(op, [(shape, dtype, x)], [(weights, dtype, kind), bias], (dtype, y), **attrs)
            inputs = arrays_q(graph, rng)
            for name in dialects:
                found.update(run_q(graph, inputs, "fast", name).tobytes())
    return found.hexdigest()


def digest_elsewhere(digest: str, folder: Path, name: str, value: str) -> str:
    """What a new process gives where the variable `name` has this value."""
    if value not in ("generic", *isas_here()):
        pytest.skip(f"this CPU has no {value}")
    env = {**os.environ, "NPMOBILENET_CACHE": str(folder), "NPMOBILENET_QUIET": "1", name: value}
    program = f"import sys; sys.path[:0] = sys.argv[1:]; import test_zoo_layers; print(test_zoo_layers.{digest}())"
    command = [sys.executable, "-c", program, *map(str, Path(__file__).parents[:2])]
    done = subprocess.run(command, env=env, capture_output=True, text=True, check=False, timeout=900)
    assert done.returncode == 0, done.stderr
    return done.stdout.strip()


@pytest.mark.equal("zoo", "fast, AVX2 or no FMA at all", "fast, all that this CPU has; a sample of layers", "bits")
@pytest.mark.parametrize("variable", [f"NPMOBILENET_ISA={ISAS[1]}", "NUMBA_CPU_NAME=generic"])
def test_lesser_instruction_sets_in_floats(variable: str, tmp_path: Path) -> None:
    """Vectors of half the width; and a CPU without FMA, where libm's fmaf does it in 4 lanes of SSE."""
    assert digest_elsewhere("digest_f32", tmp_path, *variable.split("=")) == digest_f32()


@pytest.mark.equal("uint8, int8 convolutions", "fast, AVX-512, AVX2 or less", "fast, all that this CPU has", "bits")
@pytest.mark.parametrize("name", ISAS[-2::-1])  # avx512, avxvnni, avx2, generic
def test_lesser_instruction_sets_in_integers(name: str, tmp_path: Path) -> None:
    """Bytes (VNNI) in vectors of half the width, pairs of int16 in both widths, and plain products."""
    assert digest_elsewhere("digest_q", tmp_path, "NPMOBILENET_ISA", name) == digest_q()

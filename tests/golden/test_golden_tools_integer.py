"""Golden tools on quantized models: planted faults are found, other runtimes' dumps are read and told apart."""

from __future__ import annotations

import json
import shutil
import subprocess
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import npmobilenet as nm
from npmobilenet import golden
from npmobilenet.arithmetic.dialects import DIALECTS
from npmobilenet.arithmetic.fixedpoint import requantized
from npmobilenet.errors import InputError, PlanError
from npmobilenet.golden import exporting, single_node
from npmobilenet.golden.inputs import random_input
from npmobilenet.graph import GraphBuilder, Quantization
from npmobilenet.modeldata import Array, ModelData, ModelInfo

REFERENCE, OPTIMIZED = "tflite-reference", "tflite-optimized"
PAD = ((1, 1), (1, 1))


def q(scale: float, zero_point: int) -> Quantization:
    return Quantization((float(np.float32(scale)),), (zero_point,))


def small(dtype: str = "int8") -> ModelData:
    """conv, depthwise (both with clamps), add, activation, average_pool, reshape, fully_connected, softmax."""
    random = np.random.RandomState(11)
    signed = dtype == "int8"
    b = GraphBuilder(f"small_{dtype}")
    tensors: dict[str, Any] = {}

    def weights(name: str, shape: tuple[int, ...], s_in: float, axis: int) -> list[str]:
        count = shape[-1] if signed and name != "fc" else 1
        scales = tuple(float(np.float32(s)) for s in random.uniform(0.002, 0.02, count))
        scheme = Quantization(scales, (0 if signed else 131,) * count, axis if count > 1 else None)
        b.constant(f"{name}/w", shape, dtype, quantization=scheme)
        bias = Quantization(tuple(float(np.float32(s_in) * np.float32(s)) for s in scales), (0,) * count, 0)
        b.constant(f"{name}/b", shape[-1:], "int32", quantization=bias if count > 1 else replace(bias, axis=None))
        low, high = (-127, 128) if signed else (0, 256)
        tensors[f"{name}/w"] = random.randint(low, high, shape).astype(dtype)
        tensors[f"{name}/b"] = random.randint(-3000, 3000, shape[-1]).astype(np.int32)
        return [f"{name}/w", f"{name}/b"]

    z = 0 if signed else 128
    x = b.input("input", (1, 9, 9, 3), dtype, quantization=q(0.02, z - 3), source="#0")
    conv = b.node("conv2d", [x, *weights("conv", (3, 3, 3, 20), 0.02, 3)], "conv", dtype=dtype,
                  quantization=q(0.03, z - 7), source="#1", stride=(2, 2), padding=PAD, activation="relu6")  # fmt: skip
    dw = b.node("depthwise_conv2d", [conv, *weights("dw", (3, 3, 20), 0.03, 2)], "dw", dtype=dtype,
                quantization=q(0.011, z + 5), source="#2", stride=(1, 1), padding=PAD)  # fmt: skip
    total = b.node("add", [conv, dw], "sum", dtype=dtype, quantization=q(0.025, z - 11), source="#3")
    swish = b.node("activation", [total], "swish", dtype=dtype, quantization=q(0.02, z - 9), function="hard_swish",
                   source="#4")  # fmt: skip
    pool = b.node("average_pool", [swish], "pool", dtype=dtype, quantization=q(0.02, z - 9), kernel=(5, 5),
                  stride=(1, 1), padding=((0, 0), (0, 0)), source="#5")  # fmt: skip
    flat = b.node("reshape", [pool], "flat", dtype=dtype, quantization=q(0.02, z - 9), shape=(1, 20), source="#6")
    fc = b.node("fully_connected", [flat, *weights("fc", (20, 10), 0.02, 1)], "fc", dtype=dtype,
                quantization=q(0.09, z + 2), source="#7")  # fmt: skip
    last = q(1 / 256, -128 if signed else 0)
    b.node("softmax", [fc], "softmax", dtype=dtype, quantization=last, beta=1.0, source="#8")
    b.endpoints.update({f"#{i}": n for i, n in enumerate([x, conv, dw, total, swish, pool, flat, fc, "softmax"])})
    return ModelData(b.finish(["softmax"]), tensors, ModelInfo(b.name))


@pytest.fixture(scope="module", params=["int8", "uint8"])
def model(request: pytest.FixtureRequest) -> nm.Model:
    return nm.Model(small(request.param))


@pytest.fixture(scope="module")
def dump(model: nm.Model, tmp_path_factory: pytest.TempPathFactory) -> golden.Dump:
    return golden.record(model, "random:1", tmp_path_factory.mktemp("golden") / "ours")


def copy_of(dump: golden.Dump, path: Path, **arrays: Any) -> Path:
    """A foreign dump, files called by tensor names; `arrays` in place of what was recorded."""
    path.mkdir()
    for entry in dump.entries:
        np.save(path / f"{entry.name.replace(':', '_')}.npy", arrays.get(entry.name, dump[entry.name]))
    return path


def from_hex(text: str, dtype: str, shape: tuple[int, ...]) -> Array:
    """Inverse of `exporting.to_hex`."""
    flat = np.frombuffer(bytes.fromhex(text.replace("\n", "")), np.dtype(dtype).newbyteorder(">"))
    array: Array = flat.astype(dtype).reshape(shape)
    return array


def isolated(data: ModelData, dump: golden.Dump, name: str) -> single_node.IsolatedNode:
    node = next(n for n in data.graph.nodes if n.output == name)
    return single_node.isolate(data, node, {i: dump[i] for i in node.inputs if not data.graph.tensors[i].constant})


def other_weights(data: ModelData, name: str, change: Callable[[Any], None]) -> ModelData:
    tensors = {n: a.copy() for n, a in data.tensors.items()}
    change(tensors[name])
    return ModelData(data.graph, tensors, data.info)


# -- record ------------------------------------------------------------------------------------------------------------


def test_accumulators_times_the_rule_are_the_output(model: nm.Model, dump: golden.Dump) -> None:
    entries = {entry.name: entry for entry in dump.entries}
    for name in ("conv", "dw", "fc"):
        acc, pre, out = (dump[prefix + name] for prefix in ("acc:", "pre:", ""))
        assert acc.dtype == pre.dtype == np.int32
        calls, _ = single_node.steps(isolated(model.data, dump, name), REFERENCE, "python")
        (step,) = [arg for arg in calls[0].args if hasattr(arg, "multiplier")]
        unclamped = step._replace(low=-(2**31), high=2**31 - 1)
        for at in np.ndindex(*out.shape):
            assert requantized(int(acc[at]), at[-1], step) == out[at]
            assert requantized(int(acc[at]), at[-1], unclamped) == pre[at]
        assert (np.clip(pre, step.low, step.high) == out).all()
        scales = entries[f"acc:{name}"].quantization
        assert scales is not None
        weights = model.graph.tensors[f"{name}/w"].quantization
        assert weights is not None
        assert len(scales.scale) == len(weights.scale)
        assert set(scales.zero_point) == {0}
        assert entries[f"pre:{name}"].quantization == entries[name].quantization
    assert any((dump["pre:conv"] != dump["conv"]).reshape(-1).tolist())


# -- explain -----------------------------------------------------------------------------------------------------------


def test_every_op_is_derived_under_every_dialect(model: nm.Model, dump: golden.Dump) -> None:
    random = np.random.RandomState(0)
    for node in model.graph.nodes:
        whole = {d: single_node.run(isolated(model.data, dump, node.output), d) for d in DIALECTS}
        shape = whole[REFERENCE].shape
        ends = [tuple(0 for _ in shape), tuple(s - 1 for s in shape)]
        for at in [*ends, *(tuple(random.randint(s) for s in shape) for _ in range(3))]:
            found = golden.explain(model, dump, node.output, at)
            assert found.got == found.value == dump[node.output][at]
            values = {d: part.value for part in found.derivations for d in part.dialects}
            assert values == {d: int(whole[d][at]) for d in DIALECTS}, (node.op, at)
            assert found.matching == [d for d in DIALECTS if whole[d][at] == found.got]
            assert all("whole layer" not in part.note for part in found.derivations), (node.op, at)
            if node.op in ("conv2d", "depthwise_conv2d", "fully_connected"):
                assert found.accumulator == dump[f"acc:{node.output}"][at]
                assert found.accumulator == found.bias + sum(t.value or 0 for t in found.products)
                for term in found.products:
                    x = int(dump[node.inputs[0]][term.input_at])
                    assert term.x == x
            json.dumps(found.to_dict(), allow_nan=False)


def test_the_steps_are_those_of_the_rule(model: nm.Model, dump: golden.Dump) -> None:
    found = golden.explain(model, dump, "dw", (0, 2, 3, 4))
    named = {d: [call.name for call in part.trace.calls] for part in found.derivations for d in part.dialects}
    assert "shift_away" in named[REFERENCE]
    assert "float32_rounding" in named["xnnpack"]
    whole = golden.explain(model, dump, "conv", (0, 2, 3, 4))  # depthwise of uint8 is rounded twice, flag or not
    named = {d: [call.name for call in part.trace.calls] for part in whole.derivations for d in part.dialects}
    assert "single_rounding" in named["tflite-single-rounding"]
    rounded = next(call for call in found.derivations[0].trace.calls if call.name == "requantize")
    assert rounded.arguments["rule"] == found.derivations[0].parameters["rule"] == "double"
    shown = json.loads(json.dumps(found.to_dict()))["derivations"][0]
    assert shown["parameters"]["rule"] == "double"
    swish = golden.explain(model, dump, "swish", (0, 1, 1, 1))
    assert swish.derivations[0].rule == "fixed16"
    first = swish.derivations[0].trace.calls[0]
    assert (first.name, first.arguments["q"], first.result) == (
        "hard_swish_16",
        int(dump["sum"][0, 1, 1, 1]),
        swish.value,
    )
    pool = golden.explain(model, dump, "pool", (0, 0, 0, 3))
    assert pool.inputs["their sum"] == int(dump["swish"][0, :, :, 3].astype(np.int64).sum())


def test_stages_before_the_output(model: nm.Model, dump: golden.Dump) -> None:
    for tap in ("acc:conv", "pre:conv", "pre:#7"):
        at = (0, 0) if "7" in tap else (0, 4, 4, 19)
        assert golden.explain(model, dump, tap, at).value == dump[tap][at]


def test_explaining_a_run(model: nm.Model, dump: golden.Dump) -> None:
    """From an input instead of a dump; a float model has one derivation, its chain of fused multiply-adds."""
    found = golden.explain(model, "random:1", "#3", (0, 1, 2, 3), got=int(dump["sum"][0, 1, 2, 3]))
    assert REFERENCE in found.matching
    b = GraphBuilder("float")
    x = b.input("input", (1, 4, 4, 2))
    names = [x, b.constant("w", (2, 2, 2, 3)), b.constant("b", (3,))]
    graph = b.finish([b.node("conv2d", names, "y", stride=(1, 1), padding=((0, 0), (0, 0)), activation="relu6")])
    random = np.random.RandomState(1)
    data = ModelData(graph, {n: random.normal(size=t.shape).astype(np.float32) for n, t in graph.constants.items()},
                     ModelInfo("float"))  # fmt: skip
    out, taps = nm.Model(data).run(random_input(nm.Model(data), 3), taps="acc:y")
    found = golden.explain(data, "random:3", "y", (0, 1, 1, 2), got=float(out[0, 1, 1, 2]))
    (part,) = found.derivations
    assert np.float32(found.value) == out[0, 1, 1, 2]
    assert np.float32(found.accumulator) == taps["acc:y"][0, 1, 1, 2]
    assert [call.name for call in part.trace.calls].count("fma32") == len(found.products) == 8
    assert found.verdict.endswith("is right")


@pytest.mark.parametrize(
    ("tensor", "index", "said"),
    [
        ("nope", (0, 0, 0, 0), "did you mean"),
        ("input", (0, 0, 0, 0), "nothing computes it"),
        ("conv", (0, 5, 0, 0), "expected n,y,x,c within"),
        ("conv", (0, 0, 0), "expected n,y,x,c"),
        ("conv", (-1, 0, 0, 0), "expected n,y,x,c"),
        ("acc:sum", (0, 0, 0, 0), "have accumulators"),
        ("acc:input", (0, 0, 0, 0), "an input"),
    ],
)
def test_what_cannot_be_explained(
    model: nm.Model, dump: golden.Dump, tensor: str, index: tuple[int, ...], said: str
) -> None:
    with pytest.raises((InputError, PlanError), match=said):
        golden.explain(model, dump, tensor, index)


def slips(data: ModelData, dump: golden.Dump, name: str) -> dict[str, Any]:
    """What layers with a slip would give: by kind, whole arrays."""
    what = isolated(data, dump, name)
    x, weights, bias = what.arrays
    z = what.operands[0].quantization
    assert z is not None
    moved = (replace(what.operands[0], quantization=Quantization(z.scale, (0,))), *what.operands[1:])
    padded = np.pad(x, ((0, 0), *PAD, (0, 0)))
    wide = (replace(what.operands[0], shape=(1, *padded.shape[1:])), *what.operands[1:])
    node = replace(what.node, attrs={**what.node.attrs, "padding": ((0, 0), (0, 0))})
    return {
        "bias": single_node.run(replace(what, arrays=(x, weights, np.zeros_like(bias))), REFERENCE),
        "zero point": single_node.run(replace(what, operands=moved), REFERENCE),
        "padding": single_node.run(replace(what, node=node, operands=wide, arrays=(padded, weights, bias)), REFERENCE),
    }


def test_usual_slips_are_recognized(model: nm.Model, dump: golden.Dump, tmp_path: Path) -> None:
    """By the whole layer; one value alone names no cause."""
    said = {"bias": "its bias is missing", "zero point": "its input's zero point is", "padding": "the padding holds 0"}
    for kind, wrong in slips(model.data, dump, "dw").items():
        right = dump["dw"]
        if (wrong == right).all():
            continue
        path = copy_of(dump, tmp_path / kind, dw=wrong)
        for name in ("acc_dw", "pre_dw"):  # else these tell that the fault lies behind the accumulators
            (path / f"{name}.npy").unlink()
        odd = np.argwhere(wrong != right)
        for at in map(tuple, odd[:: max(len(odd) // 2, 1)].tolist()):
            found = golden.explain(model, path, "dw", at)
            if found.matching:
                continue
            assert found.cause is not None
            assert found.cause.proved
            assert said[kind] in found.cause.text
        row = next(r for r in golden.identify(model, path).rows if r.name == "dw")
        assert said[kind] in row.cause
        alone = golden.explain(model, dump, "dw", at, got=int(wrong[at]))
        assert alone.cause is None
        assert not any("bias" in n.text or "padding" in n.text for n in alone.needed)


# -- planted faults ----------------------------------------------------------------------------------------------------


def test_one_wrong_weight_bit(model: nm.Model, dump: golden.Dump, tmp_path: Path) -> None:
    for name, at, bit in (("conv", (1, 2, 0, 17), 6), ("dw", (0, 1, 16), 5), ("fc", (7, 3), 4)):
        weights = model.data.tensors[f"{name}/w"]
        changed = int((weights.view(np.uint8) ^ np.uint8(1 << bit)).view(weights.dtype)[at])

        def change(array: Any, at: tuple[int, ...] = at, value: int = changed) -> None:
            array[at] = value

        faulty = golden.record(nm.Model(other_weights(model.data, f"{name}/w", change)), "random:1", tmp_path / name)
        result = golden.diff(dump, faulty)
        assert result.first is not None
        assert result.first.name == f"acc:{name}"
        assert "its inputs agree, so the fault lies in this node" in result.verdict
        assert result.first.comparison is not None
        assert np.flatnonzero(result.first.comparison.where["C"]).tolist() == [at[-1]]
        found = golden.identify(model, faulty)
        odd = [row.name for row in found.exceptions]
        assert set(odd) <= {f"acc:{name}", f"pre:{name}", name}
        assert f"acc:{name}" in odd
        row = found.exceptions[0]
        place = "".join(f"{axis} {i}, " for axis, i in zip(("ky", "kx", "ci") if len(at) > 2 else ("i",), at[:-1],
                                                             strict=False))  # fmt: skip
        assert f"bit {bit} of its weight ({place}co {at[-1]}) flipped" in row.cause
        assert str(changed) in row.cause
        first = result.first.comparison.first
        assert first is not None
        told = golden.explain(model, faulty, f"acc:{name}", first)
        assert told.matching == []
        assert told.verdict == f"no dialect gives {told.got}"


def test_one_wrong_bias_bit(model: nm.Model, dump: golden.Dump, tmp_path: Path) -> None:
    def change(array: Any) -> None:
        array[5] ^= 1 << 11

    faulty = golden.record(nm.Model(other_weights(model.data, "dw/b", change)), "random:1", tmp_path / "b")
    assert "bit 11 of its bias of channel 5 flipped" in golden.identify(model, faulty).exceptions[0].cause


def test_one_wrong_rounding(model: nm.Model, dump: golden.Dump, tmp_path: Path) -> None:
    """One layer computed by another dialect's rule, the rest after it from what it gave."""
    for name, other in (("dw", "xnnpack"), ("conv", "tflite-single-rounding"), ("sum", "xnnpack")):
        wrong = single_node.run(isolated(model.data, dump, name), other)
        odd = np.argwhere(wrong != dump[name])
        if not len(odd):
            continue
        path = copy_of(dump, tmp_path / name, **{name: wrong})
        found = golden.identify(model, path)
        row = next(r for r in found.rows if r.name == name)
        assert other in row.fits
        assert REFERENCE not in row.fits
        assert row in found.exceptions
        assert f"{name}: it is {' or '.join(DIALECTS[fit].title for fit in row.fits)} there" in found.verdict
        at = tuple(int(i) for i in odd[0])
        told = golden.explain(model, path, name, at)
        assert other in told.matching
        assert REFERENCE not in told.matching
        assert told.verdict.startswith(f"{told.got} is what ")
        result = golden.diff(dump, path)
        assert result.first is not None
        assert (result.first.name, result.first.comparison.first if result.first.comparison else None) == (name, at)


def test_a_swapped_scale(model: nm.Model, dump: golden.Dump, tmp_path: Path) -> None:
    """The output's scale of the addition taken with an input's."""
    what = isolated(model.data, dump, "sum")
    own, other = what.result.quantization, what.operands[1].quantization
    assert own is not None
    assert other is not None
    swapped = replace(what, result=replace(what.result, quantization=Quantization(other.scale, own.zero_point)))
    path = copy_of(dump, tmp_path / "d", sum=single_node.run(swapped, REFERENCE))
    row = next(r for r in golden.identify(model, path).rows if r.name == "sum")
    assert row.fits == []
    assert "with the scale of 'dw'" in row.cause
    assert "in place of that of 'sum'" in row.cause
    result = golden.diff(dump, path)
    assert result.first is not None
    assert result.first.name == "sum"
    assert any("a scale is wrong" in hint for hint in result.first.hints)


def test_a_dump_that_lacks_tensors(model: nm.Model, dump: golden.Dump, tmp_path: Path) -> None:
    path = copy_of(dump, tmp_path / "d")
    for name in ("dw", "acc_dw", "pre_dw", "swish"):
        (path / f"{name}.npy").unlink()
    found = golden.identify(model, path)
    assert REFERENCE in found.fits
    notes = {row.name: row.note for row in found.rows}
    assert "from 2 nodes" in notes["sum"]
    assert "from 2 nodes" in notes["pool"]
    (path / "input.npy").unlink()
    rows = {row.name: row for row in golden.identify(model, path).rows}
    assert not rows["conv"].checked
    assert "input is missing" in rows["conv"].note
    only = tmp_path / "only"
    only.mkdir()
    shutil.copy(path / "conv.npy", only)
    with pytest.raises(InputError, match="none of its tensors can be checked"):
        golden.identify(model, only)


# -- LiteRT's dumps ----------------------------------------------------------------------------------------------------


def litert_dump(path: Path, folder: Path, kind: str, x: Any, preserve: bool = True) -> Path:
    """All tensors of a run of LiteRT, each in a file called by its index."""
    litert = pytest.importorskip("ai_edge_litert.interpreter", reason="ai-edge-litert is not installed")
    made = litert.Interpreter(
        str(path), experimental_op_resolver_type=getattr(litert.OpResolverType, kind),
        experimental_preserve_all_tensors=preserve, num_threads=1,
    )  # fmt: skip
    made.allocate_tensors()
    made.set_tensor(made.get_input_details()[0]["index"], x)
    made.invoke()
    folder.mkdir()
    for tensor in made.get_tensor_details():
        try:
            np.save(folder / f"{tensor['index']}.npy", made.get_tensor(tensor["index"]))
        except ValueError:  # a tensor without data
            continue
    return folder


@pytest.mark.parametrize(
    "name", ["mobilenet_v1_0_25_128_quant", "mlperf_tiny_vww_96_int8", "mobilenet_v2_0_5_96_quant"]
)
def test_dumps_of_litert(data: Path, tmp_path: Path, name: str) -> None:
    path = data / "weights" / f"{name}.tflite"
    ours = golden.record(path, "random:5", tmp_path / "ours")
    x = ours[ours.entries[0].name]
    theirs = litert_dump(path, tmp_path / "reference", "BUILTIN_REF", x)
    result = golden.diff(ours, theirs)
    assert result.equal, result.verdict
    assert len(result.rows) == sum(entry.prefix == "" for entry in ours.entries)
    found = golden.identify(path, theirs)
    assert REFERENCE in found.fits
    assert "xnnpack" not in found.fits
    assert not found.exceptions
    optimized = litert_dump(path, tmp_path / "optimized", "BUILTIN_WITHOUT_DEFAULT_DELEGATES", x)
    found = golden.identify(path, optimized)
    assert OPTIMIZED in found.fits, found.verdict
    assert "tflite-single-rounding" not in found.fits


# -- export ------------------------------------------------------------------------------------------------------------


def read_hex(path: Path, described: dict[str, Any]) -> Any:
    text = (path / described["file"]).read_text()
    lines = text.splitlines()
    assert all(len(line) == described["bits"] // 4 for line in lines)
    return from_hex(text, described["dtype"], tuple(described["shape"]))


@pytest.mark.parametrize("order", ["hwio", "ohwi"])
def test_exported_files_are_enough_to_compute_with(model: nm.Model, tmp_path: Path, order: str) -> None:
    """A test bench that reads nothing but the export, in plain integers."""
    golden.export(model, tmp_path / "e", "random:1", "hex", order=order)
    document = json.loads((tmp_path / "e" / "manifest.json").read_text())
    vectors = {v["name"]: read_hex(tmp_path / "e", v) for v in document["vectors"]}
    seen = 0
    for node in document["nodes"]:
        files = {part: read_hex(tmp_path / "e", described) for part, described in node["files"].items()}
        if node["op"] == "fully_connected":
            p = node["parameters"]
            weights = files["weights"].astype(np.int64) - p["weights_zero_point"]
            weights = weights.T if order == "ohwi" else weights
            x = vectors[node["inputs"][0]["name"]].astype(np.int64) - p["input_zero_point"]
            acc = (x[:, :, None] * weights).sum(axis=1) + files["bias"]
            assert (acc == vectors[f"acc:{node['output']['name']}"]).all()
            factor = files["multiplier"].astype(float) * 2.0 ** (files["shift"].astype(float) - 31)
            scaled = np.floor(np.abs(acc * factor) + 0.5) * np.sign(acc) + p["zero_point"]
            assert (np.clip(scaled, p["low"], p["high"]) == vectors[node["output"]["name"]]).all()
            assert (p["rule"], seen) == ("float64", 1)
        if node["op"] == "add":
            assert node["parameters"]["rule"] == "double"
        if node["op"] == "activation":
            x = vectors[node["inputs"][0]["name"]]
            assert (files["table"][x.view(np.uint8)] == vectors[node["output"]["name"]]).all()
            seen += 1
        if node["op"] == "conv2d":
            wanted = model.data.tensors["conv/w"]
            assert (files["weights"] == (np.moveaxis(wanted, 3, 0) if order == "ohwi" else wanted)).all()
            assert node["files"]["weights"]["axes"] == (["co", "ky", "kx", "ci"] if order == "ohwi" else
                                                        ["ky", "kx", "ci", "co"])  # fmt: skip
            assert files["multiplier"].shape == files["shift"].shape == (20,)
    assert seen == 1
    names = [p.name.lower() for p in (tmp_path / "e").iterdir()]
    assert len(set(names)) == len(names)


def test_hex_is_twos_complement() -> None:
    assert exporting.to_hex(np.array([-1, -128, 127, 0], np.int8)) == "ff\n80\n7f\n00\n"
    assert exporting.to_hex(np.array([-2, 1 << 20], np.int32)) == "fffffffe\n00100000\n"
    assert exporting.to_hex(np.array([1.0, -0.5], np.float32)) == "3f800000\nbf000000\n"
    assert from_hex("80\n7f\n", "int8", (2,)).tolist() == [-128, 127]


def test_symbols_are_valid_in_c_and_unique() -> None:
    assert exporting.symbol("n001", "a/b;c-d") == "n001_a_b_c_d"
    assert exporting.symbol("n002", "é") == "n002"
    assert len(exporting.symbol("n003", "x" * 500)) < 80


def test_c_headers_compile_and_hold_the_values(model: nm.Model, tmp_path: Path) -> None:
    compiler = shutil.which("cc") or shutil.which("gcc")
    if compiler is None:
        pytest.skip("this platform has no C compiler")
    manifest = golden.export(model, tmp_path / "e", "random:1", "c", taps=["softmax"])
    dw = next(node for node in manifest["nodes"] if node["name"] == "dw")
    names = [dw["files"][part]["symbol"] for part in ("weights", "bias", "multiplier", "shift")]
    loops = "".join(
        f'for (i = 0; i < sizeof {n} / sizeof {n}[0]; i++) printf("%ld ", (long){n}[i]);\nputs("");\n' for n in names
    )
    zero = f'printf("%d\\n", {dw["symbol"].upper()}_ZERO_POINT);'
    program = f'#include <stdio.h>\n#include "params.h"\nint main(void) {{ size_t i;\n{loops}{zero} return 0; }}\n'
    (tmp_path / "e" / "main.c").write_text(program)
    flags = ["-std=c99", "-Wall", "-Wno-unused-variable", "-Wno-unused-const-variable", "-Werror"]
    subprocess.run([compiler, *flags, "-o", "t", "main.c"], cwd=tmp_path / "e", check=True)
    printed = subprocess.run([tmp_path / "e" / "t"], capture_output=True, text=True, check=True).stdout.splitlines()
    golden.export(model, tmp_path / "n", None, "npy")
    for line, part in zip(printed, ("weights", "bias", "multiplier", "shift"), strict=False):
        kept = np.load(tmp_path / "n" / dw["files"][part]["file"].replace(".h", ".npy"))
        assert [int(v) for v in line.split()] == kept.reshape(-1).tolist()
    quantization = model.graph.tensors["dw"].quantization
    assert quantization is not None
    assert int(printed[4]) == quantization.zero_point[0]


def test_floats_in_c_are_exact() -> None:
    values = np.array([0.1, -3.5, 1e-40, 3e38], np.float32)
    text = exporting.to_c(values, "x")
    literals = text.partition("{")[2].partition("}")[0].split(",")
    assert [np.float32(float.fromhex(v.strip().rstrip("f"))) for v in literals] == values.tolist()
    assert "(-2147483647 - 1)" in exporting.to_c(np.array([-(2**31)], np.int32), "x")
    with pytest.raises(InputError, match="no constant in C"):
        exporting.to_c(np.array([np.inf], np.float32), "x")


def test_exports_appear_whole(model: nm.Model, tmp_path: Path) -> None:
    golden.export(model, tmp_path / "e")
    with pytest.raises(InputError, match="exists already"):
        golden.export(model, tmp_path / "e")
    golden.export(model, tmp_path / "e", format="npy", force=True)
    for bad in ({"format": "vhdl"}, {"order": "chw"}):
        with pytest.raises(InputError):
            golden.export(model, tmp_path / "f", **bad)
    with pytest.raises(InputError, match="folder"):
        golden.export(model, tmp_path / "f.npz")
    assert sorted(p.name for p in tmp_path.iterdir()) == ["e"]


def test_accumulators_are_recorded_under_every_dialect(tmp_path: Path) -> None:
    """Those of weights with a scale for each channel have many scales, which is none of an output's."""
    data = small("int8")
    for dialect in DIALECTS:
        path = tmp_path / f"{dialect}.npz"
        dump = golden.record(nm.Model(data, dialect=dialect), "random:1", path, taps=["conv", "acc:conv", "pre:conv"])
        assert dump["acc:conv"].dtype == np.int32

"""TensorFlow checkpoints: the reader on real and on damaged files, batch-norm folding, the mapping onto a graph."""

from __future__ import annotations

import json
import struct
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from npmobilenet.errors import ConversionError, ModelNotFound
from npmobilenet.formats.batch_norm import fold_batch_norm
from npmobilenet.formats.tensorflow import checkpoint_index, crc32c
from npmobilenet.formats.tensorflow.checkpoint import Checkpoint, read_checkpoint
from npmobilenet.formats.tensorflow.model import convert_checkpoint, tensors_for_graph
from npmobilenet.formats.tensorflow.slim_names import SlimVariables, infer, needed
from npmobilenet.zoo import SPECS
from npmobilenet.zoo.build import build, build_model

GOLDENS = {
    "mobilenet_edgetpu_224_0.75": "mobilenet_edgetpu_0.75_224",
    "mobilenet_v1_0.25_128": "mobilenet_v1_0.25_128",
    "mobilenet_v2_0.35_96": "mobilenet_v2_0.35_96",
    "v3-small-minimalistic_224_1.0": "mobilenet_v3_small_minimalistic_1.0_224",
    "v3-small_224_0.75": "mobilenet_v3_small_0.75_224",
}
SMALL = "mobilenet_v1_0.25_128"
# Read with TensorFlow 2.21: tf.train.load_checkpoint(prefix).get_tensor(name), the first three values
GOLDEN_VALUES = {
    "MobilenetV1/Conv2d_0/weights": [-0.11048475, -0.03399268, 0.4350534],
    "MobilenetV1/Conv2d_7_depthwise/depthwise_weights": [1.0873944, 0.051649705, 0.5995337],
    "MobilenetV1/Conv2d_13_pointwise/BatchNorm/moving_variance": [1.2514488, 1.0232581, 0.80031914],
    "MobilenetV1/Logits/Conv2d_1c_1x1/biases": [0.05786427, -0.12727001, -0.076274976],
}

# ---------------------------------------------------------------------------------------------------------------------
# A writer, as small as can be: tests need checkpoints that TensorFlow wouldn't write

DTYPES = {"float32": 1, "float64": 2, "int32": 3, "int64": 9, "float16": 19}


def varint(value: int) -> bytes:
    out = bytearray()
    while value >= 0x80:
        out.append(value & 0x7F | 0x80)
        value >>= 7
    return bytes([*out, value])


def field(number: int, value: int | bytes) -> bytes:
    if isinstance(value, int):
        return varint(number << 3) + varint(value & (1 << 64) - 1)
    return varint(number << 3 | 2) + varint(len(value)) + value


def block(entries: list[tuple[bytes, bytes]]) -> bytes:
    out, last = b"", b""
    for key, value in entries:
        shared = next((i for i, (a, b) in enumerate(zip(key, last, strict=False)) if a != b), min(len(key), len(last)))
        out += varint(shared) + varint(len(key) - shared) + varint(len(value)) + key[shared:] + value
        last = key
    return out + struct.pack("<II", 0, 1)  # one restart point, at 0


def seal(contents: bytes, kind: int = 0) -> bytes:
    body = contents + bytes([kind])
    return body + struct.pack("<I", crc32c.mask(crc32c.crc32c(body)))


def table(entries: list[tuple[bytes, bytes]], *, snappy: bool = False) -> bytes:
    contents = block(entries)
    if snappy:  # literals only, 60 bytes each at most
        pieces = [contents[i : i + 60] for i in range(0, len(contents), 60)]
        contents = varint(len(contents)) + b"".join(bytes([len(p) - 1 << 2]) + p for p in pieces)
    data = seal(contents, int(snappy))
    meta = (len(data), len(block([])))
    data += seal(block([]))
    index = block([(b"\xff", varint(0) + varint(len(contents)))])
    footer = varint(meta[0]) + varint(meta[1]) + varint(len(data)) + varint(len(index))
    return data + seal(index) + footer.ljust(40, b"\0") + struct.pack("<Q", checkpoint_index.MAGIC)


def entry(array: np.ndarray, shard: int, offset: int, /, **override: int | bytes) -> bytes:
    values: dict[str, int | bytes] = {
        "dtype": DTYPES[str(array.dtype)],
        "shape": b"".join(field(2, field(1, d)) for d in array.shape),
        "shard": shard,
        "offset": offset,
        "size": array.nbytes,
    }
    values.update(override)
    crc = crc32c.mask(crc32c.crc32c(array.tobytes()))
    numbered = zip((1, 2, 3, 4, 5), ("dtype", "shape", "shard", "offset", "size"), strict=True)
    out = b"".join(field(number, values[name]) for number, name in numbered)
    return out + varint(6 << 3 | 5) + struct.pack("<I", crc)


def header(shards: int = 1, *more: bytes) -> tuple[bytes, bytes]:
    return b"", field(1, shards) + field(3, field(1, 1)) + b"".join(more)


def write(
    prefix: Path,
    variables: dict[str, np.ndarray],
    *,
    shards: int = 1,
    snappy: bool = False,
    head: tuple[bytes, bytes] | None = None,
) -> Path:
    data = [b""] * shards
    entries = []
    for i, (name, array) in enumerate(sorted(variables.items())):
        entries.append((name.encode(), entry(array, i % shards, len(data[i % shards]))))
        data[i % shards] += array.tobytes()
    for i, content in enumerate(data):
        Path(f"{prefix}.data-{i:05d}-of-{shards:05d}").write_bytes(content)
    Path(f"{prefix}.index").write_bytes(table([head or header(shards), *entries], snappy=snappy))
    return prefix


def random_variables(name: str = "mobilenet_v1_0.25_32", num_classes: int = 7) -> dict[str, np.ndarray]:
    rng = np.random.default_rng(1)
    shapes = needed(build_model(name, num_classes))
    return {n: rng.uniform(0.5, 1.5, shape).astype(np.float32) for n, shape in shapes.items()}


@pytest.fixture(scope="module")
def v1() -> dict[str, np.ndarray]:
    return random_variables()


# ---------------------------------------------------------------------------------------------------------------------
# Checksums and compression


def test_crc32c_known_values() -> None:
    # RFC 3720, B.4, and the check value of the catalogue of CRC algorithms
    assert crc32c.crc32c(b"123456789") == 0xE3069283
    assert crc32c.crc32c(b"") == 0
    assert crc32c.crc32c(bytes(32)) == 0x8A9136AA
    assert crc32c.crc32c(b"\xff" * 32) == 0x62A8AB43
    assert crc32c.crc32c(bytes(range(32))) == 0x46DD794E


def crc_bit_by_bit(data: bytes) -> int:
    register = 0xFFFFFFFF
    for byte in data:
        register ^= byte
        for _ in range(8):
            register = register >> 1 ^ (0x82F63B78 if register & 1 else 0)
    return register ^ 0xFFFFFFFF


@settings(derandomize=True, max_examples=60, deadline=None)
@given(st.binary(max_size=300))
def test_crc32c_equals_the_definition(data: bytes) -> None:
    assert crc32c.crc32c(data) == crc_bit_by_bit(data)
    assert crc32c.unmask(crc32c.mask(crc32c.crc32c(data))) == crc32c.crc32c(data)


def test_crc32c_over_several_chunks(monkeypatch: pytest.MonkeyPatch) -> None:
    data = np.random.default_rng(0).bytes(10_007)
    whole = crc32c.crc32c(data)
    for chunk in (1, 7, 64, 4096):
        monkeypatch.setattr(crc32c, "_CHUNK", chunk)
        assert crc32c.crc32c(data) == whole


def test_snappy() -> None:
    # 12 bytes: the literal "abcd", a copy of 4 from 4 back, then one of 4 from 1 back, which repeats itself
    stream = b"\x0c" + b"\x0cabcd" + b"\x01\x04" + b"\x0e\x01\x00"
    assert checkpoint_index.unsnappy(stream, "here") == b"abcdabcddddd"
    long = b"\xac\x02" + b"\xf4\x2b\x01" + bytes(300)  # a literal whose length of 300 - 1 stands in two bytes
    assert checkpoint_index.unsnappy(long, "here") == bytes(300)
    for bad in (
        b"\x0c\x0cabcd",
        b"\x04\x01\x04",
        b"\x02\x0cabcd",
        b"\xff\xff\xff\xff\x7f",
        b"",
        b"\x08\x0cabcd\x0e\x00\x00",
    ):
        with pytest.raises(ConversionError, match="here"):
            checkpoint_index.unsnappy(bad, "here")


# ---------------------------------------------------------------------------------------------------------------------
# The reader


@pytest.mark.parametrize("name", GOLDENS)
def test_every_golden_reads(data: Path, name: str) -> None:
    folder = data / "golden" / "slim" / name
    checkpoint = Checkpoint(folder / "model.ckpt")
    variables = read_checkpoint(folder)
    assert list(variables) == list(checkpoint.variables) == sorted(variables)
    assert {n: (a.shape, str(a.dtype)) for n, a in variables.items()} == {
        n: (v.shape, v.dtype) for n, v in checkpoint.variables.items()
    }
    assert sum(a.nbytes for a in variables.values()) == (folder / "model.ckpt.data-00000-of-00001").stat().st_size
    assert all(np.isfinite(a).all() for a in variables.values())
    assert all((a > 0).all() for n, a in variables.items() if n.endswith("moving_variance"))


def test_values_of_a_real_checkpoint(data: Path) -> None:
    read = Checkpoint(data / "golden" / "slim" / SMALL / "model.ckpt").read
    for name, values in GOLDEN_VALUES.items():
        np.testing.assert_array_equal(read(name).ravel()[: len(values)], np.float32(values), err_msg=name)


@pytest.mark.parametrize("shards", [1, 3])
@pytest.mark.parametrize("snappy", [False, True])
def test_written_and_read(tmp_path: Path, shards: int, snappy: bool) -> None:
    rng = np.random.default_rng(3)
    variables = {
        f"a/{'x' * i}/{dtype}": rng.integers(-9, 9, shape).astype(dtype)
        for i, (dtype, shape) in enumerate([("float32", (3, 5)), ("float64", (2,)), ("int32", ()), ("int64", (0, 4)),
                                            ("float16", (7,)), ("float32", (1, 1, 300, 2))])
    }  # fmt: skip
    prefix = write(tmp_path / "model.ckpt-7", variables, shards=shards, snappy=snappy)
    for spelling in (prefix, f"{prefix}.index", f"{prefix}.data-00000-of-0000{shards}", tmp_path):
        found = read_checkpoint(spelling)
        assert list(found) == sorted(variables)
        for name, array in variables.items():
            assert found[name].dtype == array.dtype
            np.testing.assert_array_equal(found[name], array)


def test_shards_are_looked_for_beside_the_index_only(
    tmp_path: Path, v1: dict[str, np.ndarray], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Not in the current folder, and not where a name in the index leads."""
    (tmp_path / "here").mkdir()
    (tmp_path / "there").mkdir()
    write(tmp_path / "there" / "m", {**v1, "../there/m": np.zeros(3, np.float32)})
    (tmp_path / "there" / "m.index").rename(tmp_path / "here" / "m.index")
    monkeypatch.chdir(tmp_path / "there")
    with pytest.raises(ConversionError, match=r"m\.data-00000-of-00001"):
        convert_checkpoint(tmp_path / "here" / "m")


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ({"shape": field(2, field(1, 1 << 40)) * 2}, r"12 bytes stored, expected \d{20,} for shape"),
        ({"shape": field(2, field(1, -1))}, "negative number"),
        ({"shape": field(2, field(1, 1)) * 200}, "rank 200, expected at most 32"),
        ({"shape": field(3, 1)}, "unknown rank"),
        ({"offset": 1 << 60}, "beyond the end"),
        ({"offset": 1}, "beyond the end"),
        ({"offset": -1}, "negative number"),
        ({"size": 16}, "16 bytes stored, expected 12"),
        ({"shard": 1}, "data file 1, and there are 1"),
        ({"dtype": 7}, "dtype string"),
        ({"dtype": 99}, "dtype number 99"),
        ({"dtype": b"x"}, "field 1 holds bytes"),
    ],
)
def test_entries_that_lie(tmp_path: Path, override: dict[str, int | bytes], message: str) -> None:
    array = np.ones(3, np.float32)
    prefix = write(tmp_path / "c", {"v": array})
    Path(f"{prefix}.index").write_bytes(table([header(), (b"v", entry(array, 0, 0, **override))]))
    with pytest.raises(ConversionError, match=message):
        Checkpoint(prefix).read("v")


@pytest.mark.parametrize(
    ("head", "message"),
    [
        ((b"", field(1, 1) + field(2, 1)), "big-endian"),
        ((b"", field(1, 1) + field(3, field(2, 2))), "bundle version 2"),
        ((b"", field(1, 0)), "0 data files"),
        ((b"", field(1, 10**9)), "1000000000 data files"),
        ((b"", field(1, 3)), "3 of its 3 data files are missing: c.data-00000-of-00003"),
        ((b"a", b""), "isn't the bundle header"),
    ],
)
def test_headers(tmp_path: Path, head: tuple[bytes, bytes], message: str) -> None:
    prefix = write(tmp_path / "c", {"v": np.ones(3, np.float32)}, head=head)
    with pytest.raises(ConversionError, match=message):
        Checkpoint(prefix)


def test_partitioned_variable_is_refused_by_name(tmp_path: Path) -> None:
    array = np.ones(3, np.float32)
    prefix = write(tmp_path / "c", {"v": array})
    sliced = entry(array, 0, 0) + field(7, field(1, b""))
    Path(f"{prefix}.index").write_bytes(table([header(), (b"\0\x01v\0\x01", entry(array, 0, 0)), (b"v", sliced)]))
    assert list(Checkpoint(prefix).variables) == ["v"]
    with pytest.raises(ConversionError, match=r"'v': it is stored in slices.*without a partitioner"):
        Checkpoint(prefix).read("v")


def test_long_shared_keys_do_not_unfold(tmp_path: Path) -> None:
    with pytest.raises(ConversionError, match="a key of 5000 bytes, expected at most 4096"):
        list(checkpoint_index.read_table(table([header(), (b"k" * 5000, b"")]), "here"))


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("frozen.pb", b"\n\x0bsome graph", r"a frozen graph or SavedModel \(\.pb\).*pass the checkpoint's prefix"),
        ("model.tgz", b"\x1f\x8b\x08\0", "a gzip archive"),
        ("model.ckpt.meta", b"\n\x0bsome graph", "the graph without the values"),
        ("model.tflite", b"\x1c\0\0\0TFL3", "a TFLite model"),
        ("model.h5", b"\x89HDF\r\n\x1a\n", "an HDF5 file"),
        ("checkpoint", b'model_checkpoint_path: "m"', "it names the prefix"),
        ("model.ckpt", b"\0" * 50 + struct.pack("<Q", checkpoint_index.MAGIC), "format V1"),
        ("photo", b"\xff\xd8", "unknown kind"),
        ("empty", b"", "an empty file"),
    ],
)
def test_other_files(tmp_path: Path, name: str, content: bytes, message: str) -> None:
    (tmp_path / name).write_bytes(content)
    with pytest.raises(ConversionError, match=message):
        Checkpoint(tmp_path / name)


def test_missing_files(tmp_path: Path) -> None:
    prefix = write(tmp_path / "c", {"a": np.ones(2, np.float32), "b": np.ones(2, np.float32)}, shards=2)
    with pytest.raises(ConversionError, match=r"no file '.*nothing\.index'"):
        Checkpoint(tmp_path / "nothing")
    Path(f"{prefix}.data-00001-of-00002").rename(tmp_path / "elsewhere")
    with pytest.raises(ConversionError, match=r"1 of its 2 data files are missing: c.data-00001-of-00002"):
        Checkpoint(prefix)
    Path(f"{prefix}.index").unlink()
    for path in (prefix, f"{prefix}.index", f"{prefix}.data-00000-of-00002"):
        with pytest.raises(ConversionError, match=r"'c\.index' is missing"):
            Checkpoint(path)


def test_folders(tmp_path: Path) -> None:
    with pytest.raises(ConversionError, match=r"no \.index file"):
        Checkpoint(tmp_path)
    write(tmp_path / "c-1", {"a": np.ones(2, np.float32)})
    write(tmp_path / "c-2", {"a": np.ones(2, np.float32)})
    with pytest.raises(ConversionError, match=r"2 checkpoints \(c-1, c-2\)"):
        Checkpoint(tmp_path)
    with pytest.raises(ConversionError, match="none of that name"):
        Checkpoint(tmp_path / "c-1").read("b")


# ---------------------------------------------------------------------------------------------------------------------
# Folding


def test_fold_is_the_exact_value_rounded_once() -> None:
    rng = np.random.default_rng(2)
    weights = rng.standard_normal((3, 3, 4, 6)).astype(np.float32)
    gamma, beta, mean = (rng.standard_normal(6).astype(np.float32) for _ in range(3))
    variance = rng.uniform(0, 2, 6).astype(np.float32)
    folded, bias = fold_batch_norm(weights, gamma, beta, mean, variance)
    exact = np.longdouble
    scale = gamma.astype(exact) / np.sqrt(variance.astype(exact) + exact(0.001))
    np.testing.assert_array_equal(folded, (weights.astype(exact) * scale).astype(np.float32))
    np.testing.assert_array_equal(bias, (beta.astype(exact) - mean.astype(exact) * scale).astype(np.float32))
    assert folded.dtype == bias.dtype == np.float32


def test_fold_by_hand() -> None:
    one = np.ones(1, np.float32)
    weights, bias = fold_batch_norm(np.full((1, 1, 1), 6, np.float32), 2 * one, one, 3 * one, 3 * one, epsilon=1.0)
    assert (weights.item(), bias.item()) == (6.0, -2.0)  # scale = 2 / sqrt(3 + 1) = 1


def test_fold_refuses() -> None:
    one, weights = np.ones(2, np.float32), np.ones((3, 3, 2), np.float32)
    with pytest.raises(ConversionError, match=r"gamma has shape \(3,\), expected \(2,\)"):
        fold_batch_norm(weights, np.ones(3, np.float32), one, one, one)
    with pytest.raises(ConversionError, match=r"variance\[1\] is -1"):
        fold_batch_norm(weights, one, one, one, np.float32([1, -1]))
    with pytest.raises(ConversionError, match="not finite"):
        fold_batch_norm(weights * np.float32(3e38), one * 100, one, one, one)


# ---------------------------------------------------------------------------------------------------------------------
# The mapping


@pytest.mark.parametrize(("folder", "name"), GOLDENS.items())
def test_goldens_convert(data: Path, folder: str, name: str) -> None:
    path = data / "golden" / "slim" / folder
    model = convert_checkpoint(path)
    assert model.info.name == model.graph.name == name
    assert (model.info.labels, model.info.label_offset) == ("imagenet", 1)
    assert model.info.provenance["ema"] == (
        "used" if json.loads((path / "meta.json").read_text())["ema"] else "not used"
    )
    assert "resolution" not in model.info.provenance
    constants = {n: t.shape for n, t in model.graph.tensors.items() if t.constant}
    assert {n: a.shape for n, a in model.tensors.items()} == constants
    assert all(a.dtype == np.float32 and a.flags.c_contiguous for a in model.tensors.values())
    again = convert_checkpoint(path / "model.ckpt.index", model=name)
    assert all((again.tensors[n] == a).all() for n, a in model.tensors.items())


@pytest.mark.parametrize(("folder", "name"), GOLDENS.items())
def test_architecture_is_found_without_a_name(data: Path, tmp_path: Path, folder: str, name: str) -> None:
    for file in (data / "golden" / "slim" / folder).glob("model.ckpt*"):
        (tmp_path / file.name).symlink_to(file)
    model = convert_checkpoint(tmp_path)
    family = name.rsplit("_", 1)[0]
    assert model.info.name == f"{family}_224"
    assert model.info.provenance["resolution"] == "224, assumed"


def test_layouts_and_folding_by_name(tmp_path: Path, v1: dict[str, np.ndarray]) -> None:
    model = convert_checkpoint(write(tmp_path / "c", v1), model="mobilenet_v1_0.25_32")
    scope = "MobilenetV1/Conv2d_3_depthwise"
    bn = [v1[f"{scope}/BatchNorm/{leaf}"] for leaf in ("gamma", "beta", "moving_mean", "moving_variance")]
    weights, bias = fold_batch_norm(v1[f"{scope}/depthwise_weights"][..., 0], *bn)
    np.testing.assert_array_equal(model.tensors[f"{scope}/depthwise_weights"], weights)
    np.testing.assert_array_equal(model.tensors[f"{scope}/biases"], bias)
    logits = "MobilenetV1/Logits/Conv2d_1c_1x1/weights"
    np.testing.assert_array_equal(model.tensors[logits], v1[logits])


@pytest.mark.parametrize(
    "name", [f"mobilenet_{f}_{m}_224" for f in SPECS if SPECS[f].slim for m in (1.0, 0.5, 1.25, 0.37)]
)
def test_every_architecture_and_width_is_found(name: str) -> None:
    expected = build_model(name, 3)
    shapes = needed(expected)
    scope = next(iter(shapes)).split("/")[0]
    fitting, difference = infer(SlimVariables(scope, "", ema=False, names={n: n for n in shapes}, shapes=shapes))
    assert not len(difference)
    assert [f"mobilenet_{c.spec.family}" for c in fitting] == [name.rsplit("_", 2)[0]]
    found = fitting[0].graph(name=name)  # perhaps of another multiplier that gives the same widths
    assert found == expected


@pytest.mark.parametrize(("classes", "labels"), [(1001, ("imagenet", 1)), (1000, ("imagenet", 0)), (5, ((), 0))])
def test_class_counts(tmp_path: Path, classes: int, labels: tuple[object, int]) -> None:
    model = convert_checkpoint(write(tmp_path / "c", random_variables(num_classes=classes)))
    assert (model.info.labels, model.info.label_offset) == labels
    assert model.graph.tensors[model.graph.endpoints["Logits"]].shape == (1, classes)


def test_without_classifier(tmp_path: Path, v1: dict[str, np.ndarray]) -> None:
    base = {n: a for n, a in v1.items() if "Logits" not in n}
    model = convert_checkpoint(write(tmp_path / "c", base))
    assert model.graph.outputs == (model.graph.endpoints["AvgPool_1a"],)
    assert model.info.labels == ()
    cut = {n: a for n, a in base.items() if "_12_" not in n and "_13_" not in n}
    model = convert_checkpoint(write(tmp_path / "c", cut))
    assert model.graph.outputs == (model.graph.endpoints["Conv2d_11_pointwise"],)
    assert model.info.provenance["final_endpoint"] == "Conv2d_11_pointwise"


def test_scaled_last_layer(tmp_path: Path) -> None:
    """Without fine-grained mode V2 0.5 ends with 640 channels, not 1280."""
    graph = build(SPECS["v2"], depth_multiplier=0.5, num_classes=3, finegrain=False)
    variables = {n: np.ones(s, np.float32) for n, s in needed(graph).items()}
    model = convert_checkpoint(write(tmp_path / "c", variables))
    assert model.tensors["MobilenetV2/Conv_1/weights"].shape == (1, 1, 160, 640)
    assert model.info.provenance["finegrain"] == "no"


def test_tensors_for_a_graph_of_ones_own(tmp_path: Path, v1: dict[str, np.ndarray]) -> None:
    graph = build(SPECS["v1"], depth_multiplier=0.25, resolution=64, num_classes=7, output_stride=16)
    tensors = tensors_for_graph(Checkpoint(write(tmp_path / "c", v1)), graph)
    assert set(tensors) == {n for n, t in graph.tensors.items() if t.constant}


def test_moving_averages_slots_and_prefix(tmp_path: Path, v1: dict[str, np.ndarray]) -> None:
    trained = [n for n in v1 if "moving_" not in n]
    tower = {f"tower_0/{n}": a for n, a in v1.items()}
    training = {
        **tower,
        **{f"tower_0/{n}/ExponentialMovingAverage": v1[n] + 1 for n in trained},
        **{f"tower_0/{n}/{slot}": v1[n] for n in trained for slot in ("RMSProp", "RMSProp_1", "Momentum", "Adam_1")},
        "global_step": np.array(7, np.int64),
        "beta1_power": np.array(0.9, np.float32),
    }
    live = convert_checkpoint(write(tmp_path / "live", tower))
    averaged = {n: v1[n] + 1 if n in trained else v1[n] for n in v1}
    average = convert_checkpoint(write(tmp_path / "average", averaged))
    prefix = write(tmp_path / "c", training)
    for ema, expected, word in (("auto", average, "used"), (True, average, "used"), (False, live, "not used")):
        model = convert_checkpoint(prefix, ema=ema)
        assert model.info.provenance["ema"] == word
        assert model.info.provenance["variable_prefix"] == "tower_0/"
        assert all((model.tensors[n] == a).all() for n, a in expected.tensors.items())
    with pytest.raises(ConversionError, match="ema=True, but no variable"):
        convert_checkpoint(tmp_path / "live", ema=True)
    with pytest.raises(ConversionError, match="expected True, False or 'auto'"):
        convert_checkpoint(prefix, ema="yes")

    lost = "tower_0/MobilenetV1/Conv2d_0/weights/ExponentialMovingAverage"
    write(
        tmp_path / "c",
        {n: a for n, a in training.items() if n != lost} | {"tower_0/MobilenetV1/odd": np.ones(1, np.float32)},
    )
    with pytest.raises(ConversionError, match=rf"1 missing: {lost}; 1 left over: tower_0/MobilenetV1/odd; .*ema=False"):
        convert_checkpoint(prefix)


def test_one_error_lists_everything(tmp_path: Path, v1: dict[str, np.ndarray]) -> None:
    odd = dict(v1)
    del odd["MobilenetV1/Conv2d_1_pointwise/BatchNorm/beta"], odd["MobilenetV1/Conv2d_9_depthwise/depthwise_weights"]
    odd["MobilenetV1/Conv2d_4_pointwise/weights"] = np.ones((1, 1, 3, 3), np.float32)
    odd["MobilenetV1/Conv2d_5_pointwise/weights"] = np.ones(4, np.float32)
    odd |= {f"Box/weights{i}": np.ones(1, np.float32) for i in range(30)}
    for model in (None, "mobilenet_v1_0.25_32"):
        with pytest.raises(ConversionError) as caught:
            convert_checkpoint(write(tmp_path / "c", odd), model=model)
        text = str(caught.value)
        assert (
            "2 missing: MobilenetV1/Conv2d_1_pointwise/BatchNorm/beta, MobilenetV1/Conv2d_9_depthwise/depthwise_"
            in text
        )
        assert (
            "2 of another shape: MobilenetV1/Conv2d_4_pointwise/weights (1, 1, 3, 3), expected (1, 1, 32, 64)" in text
        )
        assert "MobilenetV1/Conv2d_5_pointwise/weights (4,), expected (1, 1, 64, 64)" in text
        assert "30 left over: Box/weights0" in text
        assert "and 10 more" in text
        assert text.count("Box/") == 20


def test_wrong_model_names(tmp_path: Path, v1: dict[str, np.ndarray]) -> None:
    prefix = write(tmp_path / "c", v1)
    with pytest.raises(ConversionError, match=r"mobilenet_v1_0.5_128: .*of another shape"):
        convert_checkpoint(prefix, model="mobilenet_v1_0.5_128")
    with pytest.raises(ConversionError, match="under 'MobilenetV3', the checkpoint under 'MobilenetV1'"):
        convert_checkpoint(prefix, model="mobilenet_v3_large_1.0_224")
    with pytest.raises(ConversionError, match="is an 8-bit model"):
        convert_checkpoint(prefix, model="mobilenet_v1_0.25_128_uint8")
    with pytest.raises(ModelNotFound):
        convert_checkpoint(prefix, model="resnet")
    with pytest.raises(ConversionError, match="global_pool=True"):
        convert_checkpoint(prefix, model="mobilenet_v1_0.25_1024")


def test_values_that_cannot_be_weights(tmp_path: Path, v1: dict[str, np.ndarray]) -> None:
    odd = dict(v1)
    odd["MobilenetV1/Conv2d_0/weights"] = np.full_like(v1["MobilenetV1/Conv2d_0/weights"], np.nan)
    odd["MobilenetV1/Conv2d_2_pointwise/BatchNorm/beta"] = np.ones(32, np.int32)
    with pytest.raises(ConversionError, match=r"Conv2d_0/weights holds NaN or inf.*beta is int32, expected float32"):
        convert_checkpoint(write(tmp_path / "c", odd))
    odd = {**v1, "MobilenetV1/Conv2d_0/BatchNorm/moving_variance": -np.ones(8, np.float32)}
    with pytest.raises(ConversionError, match=r"'MobilenetV1/Conv2d_0': batch norm: variance\[0\] is -1"):
        convert_checkpoint(write(tmp_path / "c", odd))
    wide = {n: a.astype(np.float64) for n, a in v1.items()}
    model = convert_checkpoint(write(tmp_path / "c", wide))
    assert model.info.provenance["dtypes"] == "float64 rounded to float32"
    assert all(a.dtype == np.float32 for a in model.tensors.values())


def test_other_checkpoints_are_named(tmp_path: Path, v1: dict[str, np.ndarray]) -> None:
    one = np.ones(1, np.float32)
    with pytest.raises(ConversionError, match=r"it holds resnet/conv/weights"):
        convert_checkpoint(write(tmp_path / "c", {"resnet/conv/weights": one}))
    with pytest.raises(ConversionError, match="object-based"):
        convert_checkpoint(write(tmp_path / "c", {"layer-0/kernel/.ATTRIBUTES/VARIABLE_VALUE": one}))
    two = {f"{tower}/{n}": a for n, a in v1.items() for tower in ("a", "b")}
    with pytest.raises(ConversionError, match=r"2 networks \('a/MobilenetV1', 'b/MobilenetV1'\)"):
        convert_checkpoint(write(tmp_path / "c", two))
    quantized = {**v1, "MobilenetV1/Conv2d_0/weights_quant/min": one}
    with pytest.raises(ConversionError, match=r"1 left over: .*_quant/min; .*fake quantization.*\.tflite"):
        convert_checkpoint(write(tmp_path / "c", quantized))


def test_architectures_that_cannot_be_told_apart(tmp_path: Path) -> None:
    """Up to layer_4, V3 large and its minimalistic variant differ in their activations only."""
    graph = build(SPECS["v3_large"], final_endpoint="layer_4", base_only=True)
    prefix = write(tmp_path / "c", {n: np.ones(s, np.float32) for n, s in needed(graph).items()})
    with pytest.raises(
        ConversionError, match=r"mobilenet_v3_large, mobilenet_v3_large_minimalistic.* alike; name the model"
    ):
        convert_checkpoint(prefix)
    model = convert_checkpoint(prefix, model="mobilenet_v3_large_minimalistic_1.0_224")
    assert model.graph.outputs == ("layer_4/output",)


def test_provenance(tmp_path: Path, v1: dict[str, np.ndarray]) -> None:
    facts = convert_checkpoint(write(tmp_path / "model.ckpt-9", v1, shards=2)).info.provenance
    assert facts["source"] == "TensorFlow checkpoint model.ckpt-9"
    hashes = [k for k in facts if k.startswith("sha256 ")]
    assert hashes == [f"sha256 model.ckpt-9.{part}" for part in ("index", "data-00000-of-00002", "data-00001-of-00002")]
    assert str(tmp_path) not in json.dumps(dict(facts))

"""Plans and the Model facade: batches, taps, memory, threads, and what they refuse."""

from __future__ import annotations

import copy
import os
import pickle
import re
import subprocess
import sys
import threading
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from models import images, random_weights, tiny

import npmobilenet as nm
from npmobilenet.errors import ConversionError, GraphError, InputError, ModelNotFound, PlanError
from npmobilenet.formats import weightfile
from npmobilenet.formats.model_path import find
from npmobilenet.golden.inputs import load_input
from npmobilenet.graph import MAX_NODES, Graph, GraphBuilder, Node, Tensor
from npmobilenet.images.decoding import load_image, to_grey
from npmobilenet.kernels.compiler import without_numba
from npmobilenet.kernels.compiler.packed_arena import into_arena
from npmobilenet.model import CHUNK, Model
from npmobilenet.modeldata import ModelData, ModelInfo
from npmobilenet.ops import Quantization
from npmobilenet.runtime.exclusive import SPINS, limit_spinning
from npmobilenet.runtime.memory import ALIGNMENT, Lifetime, arena_offsets
from npmobilenet.runtime.plan import Plan, ideal_bytes
from npmobilenet.zoo import SPECS
from npmobilenet.zoo.build import build

Array = np.ndarray[Any, Any]


@pytest.mark.equal("whole model", "fast", "reference, compiled; every tensor, every family", "bits")
@pytest.mark.parametrize("family", SPECS)
def test_fast_and_reference_models_agree(family: str) -> None:
    x = images(2)
    results = [tiny(kernels, family).run(x, taps="*") for kernels in ("fast", "reference")]
    assert results[0][0].tobytes() == results[1][0].tobytes()
    for name, value in results[0][1].items():
        assert value.tobytes() == results[1][1][name].tobytes(), name


@pytest.mark.equal("whole model", "a batch", "its images one by one", "bits")
def test_a_batch_is_its_images_one_by_one() -> None:
    model, x = tiny(), images(2 * CHUNK + 3)
    whole, taps = model.run(x, taps="layer_3/*")
    for i in (0, CHUNK - 1, CHUNK, 2 * CHUNK + 2):
        single, single_taps = model.run(x[i : i + 1], taps="layer_3/*")
        assert whole[i].tobytes() == single[0].tobytes()
        for name, value in taps.items():
            assert value[i].tobytes() == single_taps[name][0].tobytes(), name


def test_results_are_the_callers_own() -> None:
    model = tiny()
    first, taps = model.run(images(1), taps=["layer_1", "Logits"])
    before = first.copy(), taps["layer_1"].copy()
    model.run(-images(1), taps=["layer_1", "Logits"])
    model.run(-images(1))
    assert np.array_equal(first, before[0])
    assert np.array_equal(taps["layer_1"], before[1])
    first[:] = 0  # writeable


@pytest.mark.equal("whole model", "into `out`", "into a new array", "bits")
def test_results_go_where_out_says() -> None:
    """In any layout, for one image and for several pieces, with taps too."""
    model, x = tiny(), images(CHUNK + 3)
    wanted = model.run(x)
    out = np.full((2, *wanted.shape), 7, wanted.dtype)
    assert model.run(x, out=out[0]) is not out
    assert out[0].tobytes() == wanted.tobytes()
    assert (out[1] == 7).all()
    turned = np.zeros(wanted.shape[::-1], wanted.dtype).T
    result = model.run(x, out=turned)
    assert result is turned
    assert turned.tobytes() == wanted.tobytes()
    one, taps = model.run(x[:1], taps="Logits", out=out[1, :1])
    assert one.base is out
    assert one.tobytes() == wanted[:1].tobytes()
    assert "Logits" in taps


@pytest.mark.equal("whole model", "a stream of images on one thread", "on all", "bits")
def test_each_thread_of_a_stream_has_an_image_of_its_own(monkeypatch: pytest.MonkeyPatch) -> None:
    """As many run at once as the model has threads, each on one; an image alone has them all."""
    model, seen, most = Model(tiny().data, threads=2), [], 0
    run, inside = Model.run, [0]

    def ran(self: Model, *args: Any, **how: Any) -> Any:
        nonlocal most
        seen.append((self.threads, id(self)))
        inside[0] += 1
        most = max(most, inside[0])
        time.sleep(0.001)
        result = run(self, *args, **how)
        inside[0] -= 1
        return result

    monkeypatch.setattr(Model, "run", ran)
    pictures = np.random.default_rng(0).integers(0, 256, (12 * CHUNK, 40, 40, 3), np.uint8)
    found = model.predict(pictures)
    assert {threads for threads, _ in seen} == {1}
    assert len(set(seen)) == most == 2
    most = 0
    seen.clear()
    assert Model(tiny().data, threads=1).predict(pictures) == found
    assert len(set(seen)) == most == 1
    seen.clear()
    assert model.predict(pictures[0]) == found[:1]
    assert seen == [(2, id(model))]


def test_an_unfit_out_is_refused() -> None:
    model, x = tiny(), images(2)
    shape = model.run(x).shape
    locked = np.zeros(shape, np.float32)
    locked.flags.writeable = False
    cases: list[tuple[Any, str]] = [
        ([0.0], "got list"),
        (np.zeros(shape), "got float64"),
        (np.zeros(shape, ">f4"), "got >f4"),
        (np.zeros((3, *shape[1:]), np.float32), re.escape(f"got float32 (3, {shape[1]})")),
        (locked, "read-only"),
        (x.reshape(-1)[: np.prod(shape)].reshape(shape), "shares memory with the input"),
    ]
    for out, said in cases:
        with pytest.raises(InputError, match=said):
            model.run(x, out=out)


@pytest.mark.equal("whole model", "with any taps", "without", "bits")
def test_taps_change_nothing() -> None:
    """Shared memory is where a tap could go wrong: with all values kept, and with one, the values are the same."""
    model, x = tiny(), images(1)
    plain = model.run(x)
    everything, all_taps = model.run(x, taps=["*", "acc:*"])
    assert plain.tobytes() == everything.tobytes()
    for name in list(all_taps)[::5]:
        output, one = model.run(x, taps=name)
        assert output.tobytes() == plain.tobytes()
        assert one[name].tobytes() == all_taps[name].tobytes(), name


def test_tap_names() -> None:
    model, x = tiny(), images(1)
    _, taps = model.run(x, taps=["layer_5/*", "acc:layer_5/depthwise_output"])
    assert "layer_5/expansion_output" in taps
    assert "layer_5/squeeze_excite/mean" in taps
    before, after = taps["acc:layer_5/depthwise_output"], taps["layer_5/depthwise_output"]
    np.testing.assert_allclose(after, before * np.clip(before + 3, 0, 6) / 6, rtol=1e-5, atol=1e-6)
    assert (before < 0).any()
    _, linear = model.run(x, taps=["acc:layer_5/output", "layer_5/output"])  # linear: its accumulator is its result
    assert np.array_equal(linear["acc:layer_5/output"], linear["layer_5/output"])
    with pytest.raises(
        PlanError, match=re.escape("tap 'layer_55' matches nothing in tiny; did you mean one of layer_5")
    ):
        model.run(x, taps="layer_55")
    with pytest.raises(PlanError, match="computed by softmax; only conv2d"):
        model.run(x, taps="acc:Predictions")
    with pytest.raises(PlanError, match="an input; only conv2d"):
        model.run(x, taps="acc:input")


def test_many_threads_of_the_caller() -> None:
    model, x = tiny(), images(4)
    expected = model.run(x).tobytes()
    wrong: list[int] = []

    def work(i: int) -> None:
        for _ in range(5):
            if model.run(x).tobytes() != expected:
                wrong.append(i)

    workers = [threading.Thread(target=work, args=(i,)) for i in range(4)]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join()
    assert not wrong


def test_thread_count_is_put_back() -> None:
    import numba

    before = numba.get_num_threads()
    data = tiny()
    one = Model(ModelData(data.graph, random_weights(data.graph), ModelInfo("tiny")), threads=1)
    assert one.run(images(3)).tobytes() == data.run(images(3)).tobytes()
    assert numba.get_num_threads() == before


def test_several_inputs() -> None:
    builder = GraphBuilder("two")
    first, second = builder.input("first", (1, 2, 2, 3)), builder.input("second", (1, 2, 2, 3))
    builder.input("unused", (1, 4))
    model = Model(ModelData(builder.finish([builder.node("sub", [first, second], "out")]), {}, ModelInfo("two")))
    a, b = images(CHUNK + 2, 2), images(CHUNK + 2, 2)[::-1]
    given = {"first": a, "second": b, "unused": np.zeros((CHUNK + 2, 4), np.float32)}
    assert np.array_equal(model.run(given), a - b)
    with pytest.raises(InputError, match="expected a dict of an array for each, got one array"):
        model.run(a)
    with pytest.raises(InputError, match="got the keys 'first'"):
        model.run({"first": a})
    with pytest.raises(InputError, match="batch sizes differ"):
        model.run(given | {"second": b[:1]})


def test_models_can_be_copied() -> None:
    model, x = tiny(), images(2)
    for again in (copy.deepcopy(model), pickle.loads(pickle.dumps(model))):
        assert again.run(x).tobytes() == model.run(x).tobytes()


FORKED = """
import multiprocessing, sys
import numpy as np
sys.path.insert(0, sys.argv[1])
from models import images, tiny
from npmobilenet.errors import PlanError

def child(model, expected, queue):
    try:
        queue.put("equal" if model.run(images(1)).tobytes() == expected else "differs")
    except PlanError as error:
        queue.put(str(error))

model = tiny()
context = multiprocessing.get_context("fork")
queue = context.Queue()
process = context.Process(target=child, args=(model, model.run(images(1)).tobytes(), queue))
process.start()
print(queue.get(timeout=100))
process.join(100)
"""


@pytest.mark.skipif(not hasattr(os, "fork"), reason="this platform has no fork")
@pytest.mark.parametrize("layer", ["omp", "workqueue"])
def test_a_forked_process_runs_or_says_why_not(layer: str) -> None:
    env = {**os.environ, "NUMBA_THREADING_LAYER": layer}
    command = [sys.executable, "-W", "ignore", "-c", FORKED, str(Path(__file__).parents[1])]
    done = subprocess.run(command, env=env, capture_output=True, text=True, check=False, timeout=200)
    if layer == "omp" and "can't start its threads" in done.stderr:
        pytest.skip("this platform has no OpenMP library for Numba")
    assert ("forked" if layer == "omp" else "equal") in done.stdout, done.stderr


# -- memory ------------------------------------------------------------------------------------------------------------

lifetimes = st.dictionaries(
    st.text("abcdefgh", min_size=1, max_size=3),
    st.tuples(st.integers(0, 12), st.integers(0, 6), st.integers(1, 5000)).map(
        lambda t: Lifetime(t[0], t[0] + t[1], t[2])
    ),
    max_size=20,
)


@given(lifetimes)
@settings(derandomize=True, deadline=None, max_examples=300)
def test_values_alive_together_never_overlap(values: dict[str, Lifetime]) -> None:
    offsets, total = arena_offsets(values)
    for a, one in values.items():
        assert offsets[a] % ALIGNMENT == 0
        assert offsets[a] + one.size <= total
        for b, two in values.items():
            if a < b and one.first <= two.last and two.first <= one.last:
                assert offsets[a] + one.size <= offsets[b] or offsets[b] + two.size <= offsets[a]


@pytest.mark.parametrize("family", SPECS)
def test_planned_memory_is_near_the_least_possible(family: str) -> None:
    graph = build(SPECS[family], resolution=96)
    plan = Plan(graph, random_weights(graph), batch=1)
    # Weights are packed to whole panels of output channels, which narrow layers don't fill.
    assert plan.weight_bytes + plan.arena_bytes <= 1.25 * ideal_bytes(graph)


# -- what is refused ---------------------------------------------------------------------------------------------------


@given(lifetimes)
@settings(derandomize=True, deadline=None, max_examples=300)
def test_each_value_lies_at_the_lowest_free_offset(values: dict[str, Lifetime]) -> None:
    """The layout of the definition, value by value: the largest first, past all that is alive and in the way."""
    placed: list[tuple[int, int, Lifetime]] = []
    offsets, _ = arena_offsets(values)
    for name, value in sorted(values.items(), key=lambda item: (-item[1].size, item[0])):
        size, offset = -(-value.size // ALIGNMENT) * ALIGNMENT, 0
        for start, end, other in sorted(placed, key=lambda entry: entry[0]):
            if other.first <= value.last and value.first <= other.last and start < offset + size:
                offset = max(offset, end)
        assert offsets[name] == offset
        placed.append((offset, offset + size, value))


def padded(rows: int, columns: int = 1) -> ModelData:
    """A model of one node whose output has so many values of 4 bytes."""
    builder = GraphBuilder("long")
    x = builder.input("x", (1, 1, 1, 1))
    graph = builder.finish([builder.node("pad", [x], "y", padding=((rows - 1, 0), (columns - 1, 0)))])
    return ModelData(graph, {}, ModelInfo("long", preprocessing="raw_pixels"))


def test_a_plan_of_more_than_a_gibibyte_is_asked_for_by_keyword() -> None:
    data = padded((1 << 28) + 1)
    with pytest.raises(PlanError, match=r"more than 1,073,741,824: .* memory_limit=1073741952 or more"):
        Model(data)
    assert Model(data, memory_limit=2 << 30).plan().arena_bytes == (1 << 30) + 128
    small = padded(100)
    with pytest.raises(PlanError, match="memory_limit=512 or more"):
        Model(small, memory_limit=100)
    model = pickle.loads(pickle.dumps(Model(small, memory_limit=512)))
    with pytest.raises(PlanError, match="of 2 images, more than 512"):
        model.plan(2)
    for wrong in (0, -1, True, 1e9, "1G"):
        with pytest.raises(PlanError, match="memory_limit="):
            Model(small, memory_limit=wrong)  # type: ignore[arg-type]


def test_refused_memory_is_a_plan_error() -> None:
    """The limit allows what no machine has."""
    with pytest.raises(PlanError, match="no memory for a plan"):
        Model(padded(1 << 30, columns=1 << 16), memory_limit=1 << 60)


def test_a_file_with_a_vast_plan(data: Path) -> None:
    with pytest.raises(PlanError, match="memory_limit"):
        nm.load(data / "hostile" / "arena_3G.h5")


@pytest.mark.parametrize("nodes", [9_998, 20_000])
def test_planning_ends_soon_for_any_number_of_nodes(nodes: int) -> None:
    """All values are alive at the end; nothing here may take time in the square of their number in Python."""
    tensors = [Tensor(name, (1, 4)) for name in ("x", *(f"y{i}" for i in range(nodes)))]
    made = [Node(t.name, "activation", ("x",), t.name, {"function": "relu"}) for t in tensors[1:]]
    last = Node("z", "concat", tuple(t.name for t in tensors), "z", {"axis": 1})
    tensors.append(Tensor("z", (1, 4 * len(tensors))))
    start = time.process_time()
    parts = {t.name: t for t in tensors}
    if nodes >= MAX_NODES:
        with pytest.raises(GraphError, match="more than 10000 nodes"):
            Graph("many", ("x",), ("z",), parts, (*made, last))
    else:
        Plan(Graph("many", ("x",), ("z",), parts, (*made, last)), {}, "python")
    assert time.process_time() - start < 20  # 3 s; 50 s before


@pytest.mark.parametrize("kernels", ["fast", "reference"])
@pytest.mark.parametrize("dtype", ["float32", "int8"])
def test_a_vast_window_takes_no_time(dtype: str, kernels: str) -> None:
    """Pools visit the pixels inside the image only: 2^40 lie in this window, 16 of them inside."""
    side = 2**20
    quantization = None if dtype == "float32" else Quantization((0.5,), (0,))
    builder = GraphBuilder("pool")
    builder.input("x", (1, 4, 4, 1), dtype, quantization=quantization)
    padding = ((side - 4, 0), (0, side - 4))
    builder.node("average_pool", ["x"], "y", dtype=dtype, quantization=quantization, kernel=(side, side),
                 stride=(1, 1), padding=padding)  # fmt: skip
    model = Model(ModelData(builder.finish(["y"]), {}, ModelInfo("pool")), kernels=kernels)
    start = time.process_time()
    out = model.run(np.full((1, 4, 4, 1), 6, dtype))
    assert time.process_time() - start < 60
    assert out.ravel().tolist() == [6]


def test_unreasonable_memory_is_refused() -> None:
    builder = GraphBuilder("vast")
    graph = builder.finish([builder.node("pad", [builder.input("x", (1, 200_000, 200_000, 3))], "y",
                                         padding=((0, 1), (0, 1)))])  # fmt: skip
    with pytest.raises(PlanError, match="bytes for intermediate values"):
        Model(ModelData(graph, {}, ModelInfo("vast")))
    with pytest.raises(PlanError, match="batch=0"):
        Plan(tiny().graph, random_weights(tiny().graph), batch=0)


def test_weights_must_fit() -> None:
    graph = build(SPECS["v2"], depth_multiplier=0.35, resolution=32, num_classes=10)
    weights = random_weights(graph)
    first = next(iter(weights))
    weights["extra"] = np.zeros(3, np.float32)
    weights[first] = weights[first].astype(np.float64)
    missing = list(weights)[5]
    del weights[missing]
    with pytest.raises(PlanError) as caught:
        Model(ModelData(graph, weights, ModelInfo("tiny")))
    for part in (f"missing: {missing}", "left over: extra (3,)", f"{first}: expected float32", "got float64"):
        assert part in str(caught.value)


def test_bad_options_are_refused() -> None:
    data = tiny()
    content = ModelData(data.graph, random_weights(data.graph), ModelInfo("tiny"))
    with pytest.raises(PlanError, match="kernels='quick' is not one of"):
        Model(content, kernels="quick")
    with pytest.raises(PlanError, match="dialect='tflite' is not one of"):
        Model(content, dialect="tflite")
    for threads in (0, 2.5, "2"):
        with pytest.raises(PlanError, match="threads="):
            Model(content, threads=threads)  # type: ignore[arg-type]
    for taps in (5, [5]):
        with pytest.raises(PlanError, match="tap"):
            data.run(images(1), taps=taps)  # type: ignore[call-overload]


@pytest.mark.parametrize(
    ("x", "message"),
    [
        (np.zeros((1, 3, 32, 32), np.float32), r"x\.transpose\(0, 2, 3, 1\)"),
        (np.zeros((1, 32, 32, 3)), r"astype\(np\.float32\)"),
        (np.zeros((32, 32, 3), np.float32), r"x\[None\]"),
        (np.zeros((0, 32, 32, 3), np.float32), "empty batch"),
        (np.full((1, 32, 32, 3), 255, np.float32), "255"),
        (np.full((1, 32, 32, 3), np.nan, np.float32), "nan"),
        (np.zeros((1, 31, 32, 3), np.float32), r"expected float32 \(N, 32, 32, 3\)"),
        (np.zeros((1, 32, 32, 3), np.uint8), "uint8"),
        ([[1.0]], "NumPy array"),
    ],
)
def test_unfit_inputs_are_refused(x: Any, message: str) -> None:
    with pytest.raises(InputError, match=message):
        tiny().run(x)


def test_range_check_can_be_dropped() -> None:
    x = np.full((1, 32, 32, 3), 255, np.float32)
    assert tiny().run(x, check_range=False).shape == (1, 10)


def test_features_are_not_a_classification() -> None:
    model = tiny(base_only=True)
    with pytest.raises(InputError, match="not a classifier"):
        model.predict(np.zeros((40, 40, 3), np.uint8))


def test_one_channel_models_take_pictures() -> None:
    model = tiny(in_channels=1)
    rng = np.random.default_rng(5)
    colours = rng.integers(0, 256, (2, 40, 50, 3), np.uint8)
    grey = to_grey(colours)
    expected = model.predict(grey)
    assert model.predict(colours) == model.predict(list(colours)) == model.predict(iter(grey[..., 0])) == expected
    x = model.preprocess(colours)
    assert x.shape == (2, 32, 32, 1)
    assert x.tobytes() == model.preprocess(list(grey)).tobytes()
    model.run(x)
    with pytest.raises(
        InputError, match=r"an input of 2 channels: pictures have 3, or 1 if grey; make its tensor yourself"
    ):
        tiny(in_channels=2).predict(colours)
    b = GraphBuilder("vector")
    graph = b.finish([b.node("softmax", [b.input("input", (1, 7))], "softmax", beta=1.0)])
    with pytest.raises(InputError, match=r"vector takes \(1, 7\), no pictures: make its tensor yourself"):
        Model(ModelData(graph, {}, ModelInfo("vector"))).preprocess(colours)


def test_a_published_one_channel_model_takes_pictures(data: Path) -> None:
    """Also by `classify` and `golden record`, which give what an array that is grey already gives."""
    pytest.importorskip("PIL", reason="decodes files: pip install 'npmobilenet[cli]'")
    path, photo = data / "weights" / "person_detect.tflite", data / "images" / "photos" / "grace_hopper.bmp"
    model = nm.load(path)
    grey = to_grey(load_image(photo))
    assert model.predict(photo) == model.predict(grey)
    arrays, _ = load_input(model, photo)
    assert arrays[model.input.name].tobytes() == model.preprocess(grey).tobytes()


# -- load --------------------------------------------------------------------------------------------------------------


def test_load_and_predict(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    model = tiny()
    content = ModelData(model.graph, random_weights(model.graph), ModelInfo("tiny", tuple("abcdefghij")))
    weightfile.write(tmp_path / "tiny.h5", content)
    loaded = nm.load(tmp_path / "tiny.h5")
    assert loaded.run(images(1)).tobytes() == model.run(images(1)).tobytes()
    [[best, second], _] = loaded.predict(np.zeros((2, 50, 40, 3), np.uint8), top=2)
    assert best[2] >= second[2]
    assert best[1] == "abcdefghij"[best[0]]
    monkeypatch.setenv("NPMOBILENET_WEIGHTS", str(tmp_path))
    assert find("tiny") == tmp_path / "tiny.h5"
    weightfile.write(tmp_path / "mobilenet_v2_1.0_224.h5", content)
    assert find("MobileNetV2").name == "mobilenet_v2_1.0_224.h5"


def test_names_with_a_slash(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Hugging Face's and timm's names are names, as for `info`; other paths to nowhere are paths."""
    model = tiny()
    monkeypatch.setenv("NPMOBILENET_WEIGHTS", str(tmp_path))
    for name in ("google/mobilenet_v2_1.0_224", "timm/tf_mobilenetv3_large_100.in1k"):
        with pytest.raises(ModelNotFound, match="not on this machine"):
            nm.load(name)
    weightfile.write(
        tmp_path / "mobilenet_v2_1.0_224.h5", ModelData(model.graph, random_weights(model.graph), model.info)
    )
    assert find("google/mobilenet_v2_1.0_224") == tmp_path / "mobilenet_v2_1.0_224.h5"
    assert nm.load("google/mobilenet_v2_1.0_224").name == "tiny"
    with pytest.raises(
        ModelNotFound, match=r"timm's model: the architecture of mobilenet_v2_1.0_224, with weights and pad"
    ):
        nm.load("timm/mobilenetv2_100.ra_in1k")
    for path in ("google/nothing", "./mobilenet_v2_1.0_224", "mobilenet_v2_1.0_224/"):
        with pytest.raises(ModelNotFound, match="there is no file"):
            nm.load(path)
    with pytest.raises(ModelNotFound, match=r"load\('FILE.pth', model='torchvision/mobilenet_v2'\)"):
        nm.load("torchvision/mobilenet_v2")
    with pytest.raises(ModelNotFound, match="attention blocks"):
        nm.load("timm/mobilenetv4_hybrid_medium")


def test_a_folder_does_not_hide_a_model(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A name wins over a folder that is no model; otherwise the error names both."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("NPMOBILENET_WEIGHTS", raising=False)
    (tmp_path / "flowers" / "roses").mkdir(parents=True)
    assert find("flowers").name == "flowers.h5"
    assert nm.load("flowers").name == "flowers"
    for path in ("./flowers", "flowers/", str(tmp_path / "flowers")):
        with pytest.raises(ConversionError, match=r"no \.index file in it"):
            nm.load(path)
    (tmp_path / "mobilenet_v2_1.0_224").mkdir()
    with pytest.raises(
        ModelNotFound, match=r"not on this machine, and the folder 'mobilenet_v2_1.0_224' is no checkpoint"
    ):
        nm.load("mobilenet_v2_1.0_224")
    (tmp_path / "flowers" / "model.index").write_bytes(b"not a table")  # a checkpoint, if a damaged one
    with pytest.raises(ConversionError, match=r"model.index.*hides the model of that name, '.*flowers\.h5'"):
        nm.load("flowers")
    (tmp_path / "flowers_uint8").write_text("a list of pictures")
    with pytest.raises(ConversionError, match=r"hides the model of that name, '.*flowers_uint8\.h5'"):
        nm.load("flowers_uint8")


def test_taps_by_one_name_and_the_nearest_names() -> None:
    model = tiny()
    assert model.match_taps("layer_5") == ("layer_5",)
    assert model.match_taps("acc:layer_5") == ("acc:layer_5",)
    for wrong, near in (
        ("Layer_3/Expansion-Output", "layer_3/expansion_output"),
        ("acc:layer_1x", "acc:layer_1"),
        ("expansion", "layer_3/expansion_output"),
        ("conv2d_1c", "Logits/Conv2d_1c_1x1"),
    ):
        with pytest.raises(PlanError, match=rf"did you mean one of {near}, "):
            model.match_taps(wrong)
        assert any(
            near == (prefix + n) for prefix in ("", "acc:") for n in (*model.graph.endpoints, *model.graph.tensors)
        )
    with pytest.raises(PlanError, match=r"did you mean one of \S+, \S+, \S+\?$"):
        model.match_taps("x" * 10_000)


def test_load_says_what_to_do(tmp_path: Path) -> None:
    with pytest.raises(
        ModelNotFound, match=r"(?s)not on this machine.*npmobilenet pull.*https://.*npmobilenet pull .* --archive"
    ):
        nm.load("mobilenet_v2_1.4_224")
    with pytest.raises(ModelNotFound, match="there is no file"):
        nm.load(tmp_path / "gone.h5")
    with pytest.raises(ModelNotFound, match=r"mobilenet_v2_1\.0_224"):
        nm.load("mobilenet_v2_1.0_2244")
    for odd in ("", "a" * 5000, "nul\0byte", None, b"bytes"):
        with pytest.raises(ModelNotFound):
            nm.load(odd)  # type: ignore[arg-type]


def test_public_names() -> None:
    assert nm.list_models("mobilenet_v3_*")
    assert callable(nm.convert)
    assert sorted(dir(nm)) == sorted(nm.__all__)
    with pytest.raises(AttributeError, match="no attribute 'nothing'"):
        _ = nm.nothing


def test_plans_of_a_model_share_packed_weights() -> None:
    model = tiny()
    first = {id(array): array.nbytes for array in model.plan(1)._held()}
    others = [model.plan(2), model._plan(1, ("layer_3/expansion_output",))]
    more = {id(array): array.nbytes for plan in others for array in plan._held() if id(array) not in first}
    assert sum(more.values()) < 0.1 * sum(first.values())


def test_packed_weights_lie_together() -> None:
    """Each array where a cache line begins, none over another, in blocks that are shared."""
    made = [np.arange(n, dtype=dtype) for n in (0, 1, 63, 4097, 3 << 20) for dtype in (np.float32, np.int8)]
    moved = [into_arena(array) for array in made]
    for array, laid in zip(made, moved, strict=True):
        assert laid.ctypes.data % 64 == 0 or not array.size
        assert laid.dtype == array.dtype
        assert np.array_equal(laid, array)
    moved[3][:] = -1
    assert all(np.array_equal(a, b) for i, (a, b) in enumerate(zip(made, moved, strict=True)) if i != 3)
    assert len({id(laid.base) for laid in moved}) < len(moved)


@pytest.mark.parametrize(("platform", "variables", "loaded"), [
    ("linux", {}, [("GOMP_SPINCOUNT", SPINS)]),
    ("linux", {"GOMP_SPINCOUNT": "1"}, []),
    ("linux", {"OMP_WAIT_POLICY": "passive"}, []),
    ("darwin", {}, []),
    ("win32", {}, []),
])  # fmt: skip
def test_only_gnu_openmp_is_told_how_to_wait(
    platform: str, variables: dict[str, str], loaded: list[tuple[str, str]], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Elsewhere Numba's OpenMP doesn't read the variable, and loading it ahead of other layers has no reason."""
    found: list[tuple[str, str]] = []
    monkeypatch.setattr(without_numba, "load_openmp", lambda *how: found.append(how))
    for name in ("GOMP_SPINCOUNT", "OMP_WAIT_POLICY"):
        monkeypatch.delenv(name, raising=False)
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    monkeypatch.setattr(sys, "platform", platform)
    limit_spinning()
    assert found == loaded

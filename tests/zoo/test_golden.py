"""Whole tensors against the originals: TF-slim's endpoints, and LiteRT on real weights and photographs."""

from __future__ import annotations

import json
import os
import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import npmobilenet as nm
from npmobilenet.formats.tensorflow.checkpoint import Checkpoint
from npmobilenet.formats.tensorflow.model import convert_checkpoint, tensors_for_graph
from npmobilenet.images.labels import synonyms
from npmobilenet.model import Model
from npmobilenet.modeldata import ModelData, ModelInfo
from npmobilenet.zoo import SPECS
from npmobilenet.zoo.build import build

V2_FLOAT = "mobilenet_v2_1.0_224_float.tflite"


def golden_folders() -> list[Path]:
    """`golden/slim` of the shared data, and more such in NPMOBILENET_GOLDENS (see tools/make_slim_goldens.py)."""
    found: list[Path] = []
    if os.environ.get("NPMOBILENET_DATA"):
        found += sorted(Path(os.environ["NPMOBILENET_DATA"], "golden", "slim").glob("*/golden.npz"))
    if os.environ.get("NPMOBILENET_GOLDENS"):
        found += sorted(Path(os.environ["NPMOBILENET_GOLDENS"]).glob("*/golden.npz"))
    return [path.parent for path in found]


def golden_model(folder: Path, meta: dict[str, Any]) -> Model:
    """Converted as a user would, or, for a golden made with options, built with the same options."""
    prefix = folder / "model.ckpt"
    options = {"output_stride", "explicit_padding", "final_endpoint", "base_only"}
    size = meta.get("size")
    if not any(meta.get(o) for o in options):
        return Model(convert_checkpoint(prefix, None if size in (None, 224) else _canonical(meta)))
    graph = build(
        SPECS[_family(meta)], depth_multiplier=meta["multiplier"], resolution=meta["size"],
        num_classes=meta["num_classes"], finegrain=meta["finegrain"], output_stride=meta["output_stride"],
        use_explicit_padding=meta["explicit_padding"], final_endpoint=meta["final_endpoint"],
        base_only=meta["base_only"],
    )  # fmt: skip
    tensors = tensors_for_graph(Checkpoint(prefix), graph)
    return Model(ModelData(graph, tensors, ModelInfo(meta["name"])))


def _family(meta: dict[str, Any]) -> str:
    return str(meta["family"]).removeprefix("mobilenet_").replace("-", "_")


def _canonical(meta: dict[str, Any]) -> str:
    return f"mobilenet_{_family(meta)}_{meta['multiplier']}_{meta['size']}"


@pytest.mark.equal("zoo", "fast", "TF-slim 1.1.0 on TensorFlow 2.15.1; every endpoint", "1e-4 * max(1, max|expected|)")
@pytest.mark.parametrize("folder", golden_folders(), ids=lambda p: p.name)
def test_every_endpoint_of_tf_slim(folder: Path) -> None:
    """max|d| <= 1e-4 * max(1, max|expected|) for each endpoint.

    The bound: each layer's sums differ from TensorFlow's only in the order of additions and in folding batch norm into
    the weights, some 1e-6 relative, and 20 to 60 layers pass that on. Measured worst: 5.4e-5 (V2 1.4).
    """
    meta = json.loads((folder / "meta.json").read_text())
    golden = np.load(folder / "golden.npz", allow_pickle=False)
    output, taps = golden_model(folder, meta).run(golden["input"], taps="*")
    names = [key.removeprefix("endpoint:") for key in golden.files if key.startswith("endpoint:")]
    assert len(names) >= 20
    for name in names:
        expected, got = golden[f"endpoint:{name}"], taps[name]
        if got.size > 300_000:
            got = got[:, ::8, ::8]  # as the goldens store large endpoints
        assert got.shape == expected.shape, name
        difference = float(np.abs(got - expected).max())
        assert difference <= 1e-4 * max(1.0, float(np.abs(expected).max())), f"{name}: {difference}"
    if "Predictions" in names:
        assert np.array_equal(output, taps["Predictions"])


def test_goldens_are_there(data: Path) -> None:
    """Five of them, so that an empty folder can't pass."""
    assert len(list((data / "golden" / "slim").glob("*/golden.npz"))) == 5
    assert golden_folders()


# -- LiteRT ------------------------------------------------------------------------------------------------------------


def litert(path: Path, preserve: bool = False) -> Any:
    interpreter = pytest.importorskip("ai_edge_litert.interpreter", reason="the LiteRT package is in the [test] extra")
    resolver = interpreter.OpResolverType.BUILTIN_REF if preserve else interpreter.OpResolverType.AUTO
    found = interpreter.Interpreter(
        str(path), experimental_op_resolver_type=resolver, experimental_preserve_all_tensors=preserve
    )
    found.allocate_tensors()
    return found


def litert_run(interpreter: Any, x: np.ndarray[Any, Any]) -> np.ndarray[Any, Any]:
    interpreter.set_tensor(interpreter.get_input_details()[0]["index"], x)
    interpreter.invoke()
    result: np.ndarray[Any, Any] = interpreter.get_tensor(interpreter.get_output_details()[0]["index"])
    return result


FLOAT_FILES = [V2_FLOAT, "mobilenet_v1_0.25_128.tflite", "mediapipe_mobilenet_v3_small_075_224_embedder.tflite"]


@pytest.mark.equal(
    "zoo", "fast", "LiteRT 2.3.0 BUILTIN_REF; every tensor of real files", "1e-4 * max(1, max|expected|)"
)
@pytest.mark.parametrize("file", FLOAT_FILES)
def test_every_tensor_of_float_tflite(data: Path, file: str) -> None:
    """Every value that LiteRT's reference kernels compute, on a photograph, to 1e-4 * max(1, max|expected|)."""
    model = nm.load(data / "weights" / file)
    x = model.preprocess(data / "images" / "photos" / "grace_hopper.bmp")
    interpreter = litert(data / "weights" / file, preserve=True)
    litert_run(interpreter, x)
    _, taps = model.run(x, taps="#*")
    assert len(taps) > 30
    for name, got in taps.items():
        expected = interpreter.get_tensor(int(name.removeprefix("#")))
        assert got.shape == expected.shape, name
        difference = float(np.abs(got - expected).max())
        assert difference <= 1e-4 * max(1.0, float(np.abs(expected).max())), f"{name}: {difference}"


@pytest.fixture(scope="module")
def hundred(data: Path) -> list[tuple[Path, str]]:
    """The 100 labelled images and their synsets, in the order of their names."""
    files = sorted(
        p for p in (data / "images" / "imagenet100").iterdir() if p.suffix.lower() in (".jpg", ".jpeg", ".png")
    )
    pairs = [(p, match.group()) for p in files if (match := re.search(r"n\d{8}", p.name))]
    assert len(pairs) == 100
    return pairs


@pytest.mark.equal("whole model", "fast", "LiteRT 2.3.0 with XNNPACK; probabilities of V2 1.0 on 100 photos", "1e-5")
@pytest.mark.parametrize(("recipe", "measured"), [("slim_inception_eval", 93), ("whole_image", 87)])
def test_top1_and_probabilities_equal_litert(
    data: Path, hundred: list[tuple[Path, str]], recipe: str, measured: int
) -> None:
    """Top-1 on 100 images within 2 of LiteRT's own count; every probability within 1e-5 on the same tensor."""
    model = nm.load(data / "weights" / V2_FLOAT)
    interpreter = litert(data / "weights" / V2_FLOAT)
    ours = theirs = 0
    for path, _ in hundred:
        x = model.preprocess(path, recipe)
        got, expected = model.run(x), litert_run(interpreter, x)
        assert float(np.abs(got - expected).max()) <= 1e-5, path.name
        wanted = _class_of(path.name)
        ours += int(got.argmax()) == wanted
        theirs += int(expected.argmax()) == wanted
    assert abs(ours - theirs) <= 2
    assert abs(theirs - measured) <= 2  # another JPEG decoder may move one


def _class_of(file_name: str) -> int:
    """The class (of 1001) whose name is in the file's name after the synset."""
    name = re.sub(r"^n\d{8}_", "", Path(file_name).stem).replace("_", " ").lower()
    hits = [i for i, names in enumerate(synonyms()) if name in [n.strip().lower() for n in names.split(",")]]
    assert hits, file_name
    return hits[0] + 1


def test_grace_hopper(data: Path) -> None:
    """The numbers of the design: LiteRT 2.3.0 gives 0.4446 and 0.8892 for class 653."""
    model = nm.load(data / "weights" / V2_FLOAT)
    for recipe, probability in (("slim_inception_eval", 0.4446), ("whole_image", 0.8892)):
        [[best, *_]] = model.predict(data / "images" / "photos" / "grace_hopper.bmp", recipe=recipe)
        assert best[:2] == (653, "military uniform")
        assert best[2] == pytest.approx(probability, abs=1e-4)

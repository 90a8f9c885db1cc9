"""The registry: every published row, names and aliases, and computed sizes beside published ones."""

from __future__ import annotations

import importlib.util
import re
import subprocess
import sys
from collections import Counter
from dataclasses import FrozenInstanceError, replace
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from npmobilenet.errors import ModelNotFound
from npmobilenet.zoo import published
from npmobilenet.zoo.build import build_model
from npmobilenet.zoo.checkpoints import (
    CHECKPOINTS,
    FAMILIES,
    ModelName,
    aliases,
    index_names,
    list_models,
    locate,
    parse,
    published_note,
    resolve,
)
from npmobilenet.zoo.names import canonical, normalise, relatives

ROOT = Path(__file__).resolve().parents[2]
BY_NAME = {row.name: row for row in CHECKPOINTS}


# --------------------------------------------------------------------------------------------------
# The tables, cell by cell


def split(line: str) -> list[str]:
    """Cells of a Markdown table line, with or without the outer bars."""
    return [cell.strip() for cell in line.strip().strip("|").split("|")]


def section(text: str, start: str, stop: str) -> list[str]:
    """Lines between two headings."""
    return text.partition(start)[2].partition(stop)[0].splitlines()


def link_targets(text: str) -> dict[str, str]:
    """Markdown's reference definitions: `[name]: address`."""
    return dict(re.findall(r"^\[([^\]]+)\]: (\S+)$", text, re.MULTILINE))


def bar_table(lines: list[str], targets: dict[str, str]) -> list[tuple[str, str, dict[str, str]]]:
    """(label, address, heading -> cell) for each row of a table whose first column is a link."""
    header: list[str] = []
    rows = []
    for line in lines:
        if line.startswith("| Imagenet Checkpoint"):
            header = split(line)[1:]
        elif match := re.match(r"\| \[([^\]]+)\](?:\[(\w+)\])?", line):
            cells = dict(zip(header, split(line)[1:], strict=True))
            rows.append((match[1], targets[match[2] or match[1]], cells))
    return rows


def assert_rows(table: published.Table, expected: list[tuple[str, str, dict[str, str]]]) -> None:
    """The registry's rows of a table are these, in any order, and so are the table's, in this order."""
    got = [(table.label_of(r), table.url_of(r), table.cells_of(r)) for r in table.rows]
    assert got == expected
    rows = [c for c in CHECKPOINTS if c.table == table.title and c.label]
    assert sorted((c.label, c.url, list(c.published.items())) for c in rows) == sorted(
        (label, url, list(cells.items())) for label, url, cells in expected
    )


@pytest.fixture(scope="session")
def seed(data: Path) -> str:
    """The published README of V2, V3 and EdgeTPU."""
    return (data / "seed" / "mobilenet_readme.md").read_text(encoding="utf-8")


def test_v1_rows_are_verbatim(data: Path) -> None:
    """All 32 rows of V1, columns and addresses."""
    text = (data / "seed" / "mobilenet_v1_rows.md").read_text(encoding="utf-8")
    lines = [split(line) for line in text.splitlines() if line.startswith("|")]
    header = lines[0]
    rows = [(row[0], row[-1], dict(zip(header[1:-1], row[1:-1], strict=True))) for row in lines[2:]]
    assert len(rows) == 32
    assert_rows(published.V1, [r for r in rows if not r[0].endswith("_quant")])
    assert_rows(published.V1_UINT8, [r for r in rows if r[0].endswith("_quant")])


def test_v2_rows_are_verbatim(seed: str) -> None:
    """All 22 rows of V2, each with its float and its 8-bit archive."""
    lines = section(seed, "### Mobilenet V2 Imagenet Checkpoints", "## Training")
    header = split(next(line for line in lines if line.startswith("Classification")))[2:]
    targets = link_targets(seed)
    as_float, as_uint8 = [], []
    for line in lines:
        match = re.match(r"\[(float_v2_\S+)\]\((\S+)\)\s*\|\s*\[uint8\]\[(\S+)\]", line)
        if match:
            cells = dict(zip(header, split(line)[2:], strict=True))
            as_float.append((match[1], match[2], cells))
            as_uint8.append((match[3], targets[match[3]], cells))
    assert len(as_float) == len(as_uint8) == 22
    assert_rows(published.V2, as_float)
    assert_rows(published.V2_UINT8, as_uint8)


def test_v3_and_edgetpu_rows_are_verbatim(seed: str) -> None:
    """6 + 3 rows of V3 and 2 of EdgeTPU."""
    targets = link_targets(seed)
    found = {
        table.title: bar_table(section(seed, start, stop), targets)
        for table, start, stop in (
            (published.V3, "### Mobilenet V3 Imagenet", "#### Minimalistic"),
            (published.V3_MINIMALISTIC, "#### Minimalistic", "#### Edge TPU"),
            (published.EDGETPU, "#### Edge TPU", "Note: 8-bit"),
        )
    }
    assert [len(rows) for rows in found.values()] == [6, 3, 2]
    for table in (published.V3, published.V3_MINIMALISTIC, published.EDGETPU):
        assert_rows(table, found[table.title])


def test_training_settings_are_verbatim(seed: str) -> None:
    """V3's table and V2's flags."""
    lines = section(seed, "### V3", "### V2")
    cells = [split(line) for line in lines if "|" in line and not line.startswith("---")]
    assert [(s.name, s.value, s.remark) for s in published.V3_TRAINING] == [
        (name, value, remark) for name, value, remark in (row[:3] for row in cells)
    ]
    flags = re.findall(r"^(--\w+)\s*=\s*(.*?)\s*(?:#\s*(.*))?$", seed, re.MULTILINE)
    assert [(s.name, s.value, s.remark) for s in published.V2_TRAINING] == flags


def test_counts() -> None:
    """Rows of each kind: 16 + 16 V1, 22 + 22 V2, 6 + 3 V3, 2 EdgeTPU (and its 2 float models)."""
    assert [len(table.rows) for table in published.TABLES] == [16, 16, 22, 22, 6, 3, 2]
    assert Counter(c.dtype for c in CHECKPOINTS) == {"float32": 46, "uint8": 43}
    assert sum(bool(c.label) for c in CHECKPOINTS) == 87
    assert [c.name for c in CHECKPOINTS if not c.label] == [
        "mobilenet_edgetpu_0.75_224",
        "mobilenet_edgetpu_1.0_224",
    ]


def test_rows_are_read_only() -> None:
    """Neither a field nor a cell can be changed."""
    row = CHECKPOINTS[0]
    with pytest.raises(FrozenInstanceError):
        row.name = "other"  # type: ignore[misc]
    with pytest.raises(TypeError):
        row.published["top-1"] = "100"  # type: ignore[index]


@pytest.mark.parametrize(
    ("name", "numbers"),
    [
        ("mobilenet_v1_0.25_128", ("14", "0.47", "41.5", "66.3")),
        ("mobilenet_v2_1.4_224", ("582", "6.06", "75.0", "92.5")),
        ("mobilenet_v3_large_0.75_224", ("155", "4.0", "73.3", "")),
        ("mobilenet_edgetpu_1.0_224_uint8", ("990", "4.0", "75.6", "")),
        ("mobilenet_edgetpu_1.0_224", ("990", "4.0", "", "")),
    ],
)
def test_columns_under_one_name(name: str, numbers: tuple[str, ...]) -> None:
    """The tables name their columns differently; macs, params, top1 and top5 read them all."""
    row = resolve(name)
    assert (row.macs, row.params, row.top1, row.top5) == numbers


# --------------------------------------------------------------------------------------------------
# Names


@pytest.mark.parametrize(
    ("spelling", "name"),
    [
        # the published README
        ("v3-large_224_1.0_float", "mobilenet_v3_large_1.0_224"),
        ("v3-large_224_0.75_float", "mobilenet_v3_large_0.75_224"),
        ("v3-small_224_1.0_uint8", "mobilenet_v3_small_1.0_224_uint8"),
        ("v3-small-minimalistic_224_1.0_float", "mobilenet_v3_small_minimalistic_1.0_224"),
        ("v3-large-minimalistic_224_1.0_uint8", "mobilenet_v3_large_minimalistic_1.0_224_uint8"),
        ("Large dm=1 (float)", "mobilenet_v3_large_1.0_224"),
        ("Small dm=0.75 (float)", "mobilenet_v3_small_0.75_224"),
        ("Large minimalistic (8-bit)", "mobilenet_v3_large_minimalistic_1.0_224_uint8"),
        ("float_v2_1.4_224", "mobilenet_v2_1.4_224"),
        ("quantized_v2_1.4_224", "mobilenet_v2_1.4_224_uint8"),
        ("quantized_v2_224_140", "mobilenet_v2_1.4_224_uint8"),
        ("quantized_v2_96_35", "mobilenet_v2_0.35_96_uint8"),
        ("mobilenet_edgetpu_224_1.0", "mobilenet_edgetpu_1.0_224"),
        ("mobilenet_edgetpu_224_1.0_uint8", "mobilenet_edgetpu_1.0_224_uint8"),
        ("MobilenetEdgeTPU dm=0.75 (8-bit)", "mobilenet_edgetpu_0.75_224_uint8"),
        ("MobileNet_v1_0.50_224", "mobilenet_v1_0.5_224"),
        ("MobileNet_v1_0.50_224_quant", "mobilenet_v1_0.5_224_uint8"),
        ("mobilenet_v1_1.0_224_quant", "mobilenet_v1_1.0_224_uint8"),
        # TensorFlow Lite and Coral files
        ("mobilenet_v2_1.0_224_quant", "mobilenet_v2_1.0_224_uint8"),
        ("mobilenet_v1_0_25_128_quant", "mobilenet_v1_0.25_128_uint8"),
        # Keras
        ("MobileNet", "mobilenet_v1_1.0_224"),
        ("MobileNetV2", "mobilenet_v2_1.0_224"),
        ("MobileNetV3Large", "mobilenet_v3_large_1.0_224"),
        ("MobileNetV3Small", "mobilenet_v3_small_1.0_224"),
        ("mobilenet_1_0_224_tf", "mobilenet_v1_1.0_224"),
        ("mobilenet_2_5_128_tf", "mobilenet_v1_0.25_128"),
        ("mobilenet_1.00_224", "mobilenet_v1_1.0_224"),
        ("mobilenetv2_0.35_96", "mobilenet_v2_0.35_96"),
        ("mobilenet_v2_weights_tf_dim_ordering_tf_kernels_1.4_224", "mobilenet_v2_1.4_224"),
        ("weights_mobilenet_v3_large_224_1.0_float", "mobilenet_v3_large_1.0_224"),
        (
            "weights_mobilenet_v3_small_minimalistic_224_1.0_float",
            "mobilenet_v3_small_minimalistic_1.0_224",
        ),
        # timm's ports, Hugging Face, TensorFlow Hub
        ("tf_mobilenetv3_large_100", "mobilenet_v3_large_1.0_224"),
        ("tf_mobilenetv3_large_100.in1k", "mobilenet_v3_large_1.0_224"),
        ("timm/tf_mobilenetv3_small_075.in1k", "mobilenet_v3_small_0.75_224"),
        ("tf_mobilenetv3_large_minimal_100", "mobilenet_v3_large_minimalistic_1.0_224"),
        ("tf_mobilenetv3_small_minimal_100.in1k", "mobilenet_v3_small_minimalistic_1.0_224"),
        ("google/mobilenet_v2_1.0_224", "mobilenet_v2_1.0_224"),
        ("mobilenet_v2_035_96", "mobilenet_v2_0.35_96"),
        # other forms of the canonical name
        ("MOBILENET-V2-1.0-224-UINT8", "mobilenet_v2_1.0_224_uint8"),
        ("mobilenet_v2_1.00_224x224", "mobilenet_v2_1.0_224"),
    ],
)
def test_spellings(spelling: str, name: str) -> None:
    """One example of every rule, and of every published spelling."""
    assert resolve(spelling).name == name
    assert str(parse(spelling)) == name


@pytest.mark.parametrize(
    ("spelling", "name"),
    [
        ("mobilenetv2_140.ra_in1k", "mobilenet_v2_1.4_224"),
        ("mobilenetv2_050", "mobilenet_v2_0.5_224"),
        ("mobilenetv2_100.ra_in1k", "mobilenet_v2_1.0_224"),
        ("mobilenetv1_100.ra4_e3600_r224_in1k", "mobilenet_v1_1.0_224"),
        ("timm/mobilenetv3_large_100.ra_in1k", "mobilenet_v3_large_1.0_224"),
        ("mobilenetv3_small_075.lamb_in1k", "mobilenet_v3_small_0.75_224"),
        ("mobilenet_edgetpu_100", "mobilenet_edgetpu_1.0_224"),
        ("mobilenet_v2", "mobilenet_v2_1.0_224"),
        ("MobileNet-V3-Small", "mobilenet_v3_small_1.0_224"),
        ("mobilenet_v3_large", "mobilenet_v3_large_1.0_224"),
    ],
)
def test_names_of_other_weights(spelling: str, name: str) -> None:
    """timm's and torchvision's own models: the architecture is known by these names, a checkpoint is not."""
    assert str(parse(spelling)) == name
    for look_up in (resolve, aliases):
        with pytest.raises(ModelNotFound, match=rf"the architecture of {re.escape(name)}, with weights and padding"):
            look_up(spelling)
    assert list_models(spelling) == []


def test_no_name_has_two_kinds_of_weights() -> None:
    others = [normalise(other) for row in CHECKPOINTS for other, _ in relatives(row.model)]
    assert len(others) == len(set(others))
    assert not set(others) & {normalise(n) for row in CHECKPOINTS for n in (row.name, *aliases(row.name))}


def test_every_name_and_alias_resolves() -> None:
    """Also with case and dashes changed; canonical names read back to the row's own fields."""
    for row in CHECKPOINTS:
        assert resolve(row.name) is row
        assert canonical(row.name) == row.model
        assert row.family in FAMILIES
        for alias in aliases(row.name):
            for form in (alias, alias.upper(), alias.replace("_", "-"), f" {alias} "):
                assert resolve(form) is row, form


def test_stems_of_all_archives_are_names() -> None:
    """A name cut from a published address finds its row (EdgeTPU's bare stem: the float model)."""
    for row in CHECKPOINTS:
        stem = row.url.rpartition("/")[2].removesuffix(".tgz")
        expected = row.name.removesuffix("_uint8") if row.family == "edgetpu" else row.name
        assert resolve(stem).name == expected


def test_duplicate_names_are_refused() -> None:
    """A second row of the same name, or one whose alias is taken, is an error."""
    row = BY_NAME["mobilenet_v2_1.0_224"]
    with pytest.raises(ValueError, match=r"'mobilenet_v2_1.0_224' names"):
        index_names((*CHECKPOINTS, row))
    taken = replace(BY_NAME["mobilenet_v2_1.4_224"], label="MobileNetV2")
    with pytest.raises(ValueError, match=r"'mobilenetv2' names"):
        index_names((row, taken))
    names = [normalise(n) for r in CHECKPOINTS for n in {r.name, *map(normalise, aliases(r.name))}]
    assert len(names) == len(set(names))


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("mobilenet_v2_0.6_160", ("v2", 0.6, 160, "float32")),
        ("mobilenet_v3_small_1.0_128", ("v3_small", 1.0, 128, "float32")),
        ("mobilenet_v3_large_minimalistic_0.75_96_uint8",
         ("v3_large_minimalistic", 0.75, 96, "uint8")),
        ("mobilenet_v3_small_detection_1.0_320", ("v3_small_detection", 1.0, 320, "float32")),
        ("mobilenet_edgetpu_1.0_192x256", ("edgetpu", 1.0, (192, 256), "float32")),
        ("MobileNet-V1-0.50-224", ("v1", 0.5, 224, "float32")),
        ("MobileNetV3Small", ("v3_small", 1.0, 224, "float32")),
    ],
)  # fmt: skip
def test_parse(name: str, expected: tuple[str, float, int | tuple[int, int], str]) -> None:
    """Any name of canonical form, and aliases."""
    model = parse(name)
    assert (model.family, model.depth_multiplier, model.resolution, model.dtype) == expected


@settings(derandomize=True, deadline=None, max_examples=100)
@given(
    st.sampled_from(FAMILIES),
    st.integers(1, 999999).map(lambda n: n / 10000),
    st.integers(1, 99999),
    st.integers(1, 99999),
    st.sampled_from(["float32", "uint8"]),
)
def test_canonical_names_round_trip(family: str, multiplier: float, height: int, width: int, dtype: str) -> None:
    """str and parse are inverse."""
    size = height if height == width else (height, width)
    model = ModelName(family=family, depth_multiplier=multiplier, resolution=size, dtype=dtype)
    assert parse(str(model)) == model


@settings(derandomize=True, deadline=None, max_examples=40)
@given(st.text(max_size=60))
def test_any_text_resolves_or_says_not_found(text: str) -> None:
    """No other exception, whatever the text."""
    for look_up in (resolve, parse, aliases):
        try:
            look_up(text)
        except ModelNotFound as error:
            assert "npmobilenet models" in str(error)  # noqa: PT017


@pytest.mark.parametrize(
    "name",
    [
        "", ".", "mobilenet", "mobilenet_v4_1.0_224", "mobilenet_v2_0.0_224", "mobilenet_v2_1.0_0",
        "mobilenet_v2_1.0_0x5", "mobilenet_v2_1.0_-224", "mobilenet_v2_1.0_224_int8x",
        "mobilenet_v2_1.0_224.tflite", "mobilenet_v2_\u0661.\u0660_224", "mobilenetv2_100/../x", "mobilenet_v2.h5",
        "mobilenetv2_110d.ra_in1k", "mobilenet_v2_1e9_224", "x" * 1_000_000, None, 7, b"v2",
    ],
)  # fmt: skip
def test_unknown_names(name: object) -> None:
    """ModelNotFound, in one short line, also for what isn't a str."""
    if name == "mobilenet":  # Keras' MobileNet, in lower case
        assert resolve("mobilenet").name == "mobilenet_v1_1.0_224"
        return
    for look_up in (resolve, parse):
        with pytest.raises(ModelNotFound) as caught:
            look_up(name)  # type: ignore[arg-type]
        assert len(str(caught.value)) < 400
        assert "\n" not in str(caught.value)


def test_not_found_suggests() -> None:
    """The closest canonical names, also for a misspelt alias and for an unpublished architecture."""
    with pytest.raises(ModelNotFound, match=r"closest: mobilenet_v2_1\.0_224, "):
        resolve("mobilenet_v2_1.0_242")
    with pytest.raises(ModelNotFound, match=r"closest: mobilenet_v3_large_1\.0_224"):
        resolve("tf_mobilenet_v3large_100")
    with pytest.raises(ModelNotFound, match=r"no checkpoint was published .*mobilenet_v2_0\.5_160"):
        resolve("mobilenet_v2_0.6_160")


def test_list_models(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Patterns, aliases, order, and what is on this machine."""
    monkeypatch.delenv("NPMOBILENET_WEIGHTS", raising=False)
    assert list_models() == ["flowers", "flowers_uint8", *(row.name for row in CHECKPOINTS)]
    assert list_models(present=False) == [row.name for row in CHECKPOINTS]
    assert len(list_models()) == 2 + 89
    for file in ("mine.h5", "v3-small_224_1.0_uint8.h5", "mobilenet_v2_1.0_224_float.h5", "notes.txt"):
        (tmp_path / file).touch()
    monkeypatch.setenv("NPMOBILENET_WEIGHTS", str(tmp_path))
    here = ["flowers", "flowers_uint8", "mine", "mobilenet_v2_1.0_224", "mobilenet_v3_small_1.0_224_uint8"]
    assert list_models(present=True) == here
    assert set(list_models()) == {"mine", "flowers", "flowers_uint8", *(row.name for row in CHECKPOINTS)}
    assert list_models("MINE") == ["mine"]
    assert locate("MobileNetV2") == locate("mobilenet_v2_1.0_224_float") == tmp_path / "mobilenet_v2_1.0_224_float.h5"
    for near in ("flowrs", "mine2"):
        with pytest.raises(ModelNotFound, match=r"closest: (flowers|mine)\b"):
            resolve(near)
    monkeypatch.setenv("NPMOBILENET_WEIGHTS", str(tmp_path / "none"))
    assert list_models(present=True) == ["flowers", "flowers_uint8"]
    assert list_models("mobilenet_v3_small*") == [
        "mobilenet_v3_small_0.75_224",
        "mobilenet_v3_small_1.0_224",
        "mobilenet_v3_small_1.0_224_uint8",
        "mobilenet_v3_small_minimalistic_1.0_224",
    ]
    assert list_models("MobileNet-V2-[01].[03]*_2?4") == [
        f"mobilenet_v2_{multiplier}_224" for multiplier in ("0.35", "1.0", "1.3")
    ]
    assert list_models("tf_mobilenetv3_*_minimal_100") == [
        "mobilenet_v3_large_minimalistic_1.0_224",
        "mobilenet_v3_small_minimalistic_1.0_224",
    ]
    assert list_models("quantized_v2_*_140") == ["mobilenet_v2_1.4_224_uint8"]
    assert list_models("resnet*") == []
    # By number, not by text: 96 before 128.
    sizes = [n.split("_")[3] for n in list_models("mobilenet_v2_0.35_*_uint8")]
    assert sizes == ["96", "128", "160", "192", "224"]


# --------------------------------------------------------------------------------------------------
# Computed and published

# Rows whose published MACs are not the computed ones within 1 M; published_note says why.
# Values: published / computed.
MACS_EXCEPTIONS = {
    **{f"mobilenet_v1_0.75_{size}": 317 / 325.4 for size in (128, 160, 192, 224)},
    "mobilenet_v1_0.25_192": 34 / 30.2,
    "mobilenet_v3_small_1.0_224": 66 / 56.5,
    "mobilenet_v3_small_minimalistic_1.0_224": 65 / 52.3,
}
PARAMS_EXCEPTIONS = {"mobilenet_v3_small_0.75_224": 2.4 / 2.04, "mobilenet_v3_small_1.0_224": 2.9 / 2.54}


def test_v1_macs_of_slims_own_list() -> None:
    """mobilenet_v1.py lists 567,716,352 (1.0_224) and 106,002,432 (0.75_128), without the classifier."""
    assert build_model("mobilenet_v1_1.0_224").total_macs == 567_716_352 + 1024 * 1001
    assert build_model("mobilenet_v1_0.75_128").total_macs == 106_002_432 + 768 * 1001


@pytest.mark.parametrize("name", [row.name for row in CHECKPOINTS])
def test_published_sizes_are_near_the_computed_ones(name: str) -> None:
    """MACs within 1 M (rounding) and parameters within their last digit, but for the listed rows."""
    row, graph = BY_NAME[name], build_model(name)
    macs, architecture = graph.total_macs / 1e6, name.removesuffix("_uint8")
    if architecture in MACS_EXCEPTIONS:
        assert published_note(row)
        assert abs(float(row.macs) - macs) > 1
        assert float(row.macs) / macs == pytest.approx(MACS_EXCEPTIONS[architecture], rel=2e-3)
    else:
        assert abs(float(row.macs) - macs) < 1
    params = {flag: graph.total_params(batch_norm=flag) / 1e6 for flag in (False, True)}
    if architecture in PARAMS_EXCEPTIONS:
        assert published_note(row)
        ratio = float(row.params) / params[True]
        assert ratio == pytest.approx(PARAMS_EXCEPTIONS[architecture], rel=2e-3)
    elif row.family == "v2":
        assert f"{params[False]:.2f}" == row.params
        assert f"{params[True]:.2f}" != row.params
    elif row.family == "v1":
        assert 0 <= float(row.params) - params[True] < 0.01 or row.params == f"{params[True]:.2f}"
    else:
        assert abs(float(row.params) - params[True]) < 0.1


def test_published_8_bit_file_is_the_computed_v3_small(data: Path) -> None:
    """The published file, not the README's row, has the computed MACs: the note's evidence."""
    tflite = pytest.importorskip("tflite")
    content = (data / "weights" / "v3-small_224_1.0_uint8.tflite").read_bytes()
    graph = tflite.Model.GetRootAsModel(content, 0).Subgraphs(0)
    macs = 0
    for index in range(graph.OperatorsLength()):
        node = graph.Operators(index)
        weights = graph.Tensors(node.Inputs(1)).ShapeAsNumpy() if node.InputsLength() == 3 else None
        out = graph.Tensors(node.Outputs(0)).ShapeAsNumpy()
        if weights is not None:  # convolutions alone have weights and a bias
            macs += int(weights.prod()) * int(out[1]) * int(out[2])
    assert macs == build_model("mobilenet_v3_small_1.0_224_uint8").total_macs


# --------------------------------------------------------------------------------------------------
# The page, and the cost of importing


def test_models_page_is_current() -> None:
    """docs/models.md is what tools/make_model_docs.py writes."""
    tool = ROOT / "tools" / "make_model_docs.py"
    if not tool.is_file():
        pytest.skip("not a checkout: tools/ is not installed")
    spec = importlib.util.spec_from_file_location("make_model_docs", tool)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    assert module.main(["--check"]) == 0


def test_models_page_shows_all_rows() -> None:
    """Every name, address and cell is on the page."""
    page = ROOT / "docs" / "models.md"
    if not page.is_file():
        pytest.skip("not a checkout: docs/ is not installed")
    lines = page.read_text(encoding="utf-8").splitlines()
    for row in CHECKPOINTS:
        line = next(line for line in lines if line.startswith(f"| `{row.name}` |"))
        assert f"({row.url})" in line
        assert set(row.published.values()) <= set(split(line))


def test_the_registry_needs_neither_numpy_nor_numba() -> None:
    """Its modules import the standard library only, so that listing models is quick."""
    code = (
        "import sys, types; package = types.ModuleType('npmobilenet'); "
        f"package.__path__ = [{str(ROOT / 'npmobilenet')!r}]; sys.modules['npmobilenet'] = package; "
        "import npmobilenet.zoo.checkpoints as c; c.resolve('MobileNetV2'); "
        "assert not {'numpy', 'numba', 'h5py', 'difflib', 'fnmatch'} & set(sys.modules)"
    )
    subprocess.run([sys.executable, "-c", code], check=True, timeout=60)

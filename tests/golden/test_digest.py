"""Digests: what is hashed, that machines agree on it, and how `diff` reads one."""

from __future__ import annotations

import hashlib
from pathlib import Path

import numpy as np
import pytest
from click.testing import CliRunner
from test_golden_tools_integer import small

from npmobilenet import golden
from npmobilenet.cli.app import app
from npmobilenet.errors import InputError
from npmobilenet.formats import weightfile
from npmobilenet.golden.dump import MANIFEST
from npmobilenet.model import Model, load

EXAMPLE = Path(__file__).resolve().parents[2] / "docs" / "example.png"
# Of every tensor of the models in the box, on the drawn example: the same on every machine, for ever.
ALL = {"flowers": "986cd315b92623f1dc1aa4728e5abce0", "flowers_uint8": "4eaf3e6485660c659dd64397b4b049c4"}


@pytest.mark.parametrize("name", ALL)
def test_the_models_in_the_box(name: str) -> None:
    assert golden.digest(name, EXAMPLE).total == ALL[name]


@pytest.fixture(scope="module")
def ours(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a model, its dump and its digest."""
    folder = tmp_path_factory.mktemp("digest")
    weightfile.write(folder / "small.h5", small("int8"))
    golden.record(folder / "small.h5", "random:1", folder / "dump")
    result = CliRunner().invoke(app, ["golden", "digest", str(folder / "small.h5"), "random:1"])
    assert result.exit_code == 0, result.stderr
    (folder / "digest.txt").write_text(result.stdout, encoding="ascii")
    return folder


def test_what_is_hashed(ours: Path) -> None:
    """The definition, computed once more from the dump's files."""
    dump = golden.Dump(ours / "dump")
    lines = []
    for entry in dump.entries:
        if not entry.prefix:
            array = dump[entry.name]
            inner = hashlib.sha256(array.tobytes()).hexdigest()
            shape = "x".join(map(str, array.shape))
            outer = hashlib.sha256(f"{array.dtype} {shape} {inner}\n".encode()).hexdigest()[:16]
            lines.append(f"{outer} {array.dtype} {shape} {entry.name}")
    text = (ours / "digest.txt").read_text(encoding="ascii")
    head, *body = text.splitlines()
    assert head == "npmobilenet-digest 1"
    assert [line for line in body[:-1] if not line.startswith("# ")] == lines
    nameless = "".join(line.rpartition(" ")[0] + "\n" for line in lines)
    assert body[-1] == hashlib.sha256(nameless.encode()).hexdigest()[:32] + " all"
    assert str(golden.read_digest(ours / "digest.txt")) + "\n" == text


def test_diff_reads_it(ours: Path, tmp_path: Path) -> None:
    """Against a digest, a recorded dump, and files that anyone wrote; equal or not, and which tensor first."""
    text = (ours / "digest.txt").read_text(encoding="ascii")
    assert golden.diff(ours / "digest.txt", ours / "digest.txt").equal
    assert golden.diff(ours / "dump", ours / "digest.txt").equal
    wrong = golden.record(ours / "small.h5", "random:1", tmp_path / "wrong")
    array = wrong["dw"].copy()
    array[0, 2, 3, 4] ^= 32
    np.save(tmp_path / "wrong" / next(e.file for e in wrong.entries if e.name == "dw"), array)
    found = golden.diff(ours / "digest.txt", tmp_path / "wrong")
    assert [row.name for row in found.rows if not row.equal] == ["dw"]
    assert found.verdict.startswith("first diverging: dw (depthwise_conv2d); its inputs agree")
    (tmp_path / "wrong" / MANIFEST).unlink()  # a foreign dump, flat: brought into shape, then hashed
    np.save(tmp_path / "wrong" / "conv.npy", wrong["conv"].reshape(-1))
    for path in (tmp_path / "wrong").glob("0*"):
        path.unlink()
    assert golden.diff(ours / "digest.txt", tmp_path / "wrong").equal
    other = tmp_path / "other.txt"
    other.write_text(str(golden.digest(ours / "small.h5", "random:2", "conv")) + "\n", encoding="ascii")
    result = CliRunner().invoke(app, ["golden", "diff", str(ours / "digest.txt"), str(other)])
    assert result.exit_code == 1
    assert "first diverging: input" in result.stdout
    assert "another input: A random:1" in result.stdout
    with pytest.raises(InputError, match="tells equal from unequal"):
        golden.diff(ours / "digest.txt", other, tolerance=golden.Tolerance(lsb=1))
    broken = {
        "no whole digest": text.replace("dw", "dx", 1).rsplit("\n", 2)[0] + "\n",
        "expected HASH DTYPE SHAPE NAME": text.replace(" int8 1x", " int8 x", 1),
        "reads 'npmobilenet-digest 1'": text.replace("digest 1", "digest 2", 1),
        "listed twice": "\n".join([*text.splitlines()[:-1], text.splitlines()[-2], text.splitlines()[-1]]),
        "expected '": text.replace(" int8 1x", " int8 1x2x", 1),
    }
    for message, content in broken.items():
        other.write_text(content, encoding="ascii")
        with pytest.raises(InputError, match=message):
            golden.diff(ours / "digest.txt", other)


def test_batches_taps_and_names(ours: Path) -> None:
    """One hash however the batch is cut; accumulators on request; a model that is loaded."""
    data = small("int8")
    x = np.random.RandomState(0).randint(-128, 128, (11, *data.graph.tensors[data.graph.inputs[0]].shape[1:]))
    x = x.astype(np.int8)
    found = golden.digest(Model(data), x, "*")
    assert any(entry.prefix == "acc:" for entry in found.entries)
    whole = Model(data).run(x)
    last = next(entry for entry in found.entries if entry.name == data.graph.outputs[0])
    assert last.shape == whole.shape
    assert last.sha256 == hashlib.sha256(whole.tobytes()).hexdigest()
    assert golden.digest(load(ours / "small.h5"), x, "*").total == found.total

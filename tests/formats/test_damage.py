"""Damaged files of every reader: one table of sound files, and what is done to each.

Whatever was done, a reader refuses the file by one printable line of `NpMobilenetError`, or reads it; where the format
has checksums, what it reads is the sound model. No other exception, no warning, no second lost, no gibibyte asked for.
"""

from __future__ import annotations

import contextlib
import json
import random
import re
import shutil
import struct
import subprocess
import sys
import time
import warnings
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import pytorch_maker
import test_keras as keras
import test_pytorch as pytorch
import test_pytorch_hostile
import test_tf_checkpoint as checkpoints
import test_weightfile as weightfiles

from npmobilenet.errors import ConversionError, InputError, WeightFileError
from npmobilenet.formats import read_model, weightfile
from npmobilenet.formats.keras.model import convert_keras
from npmobilenet.formats.pytorch.opcodes import OpcodeError
from npmobilenet.formats.tensorflow import checkpoint_index
from npmobilenet.formats.tensorflow.checkpoint import read_checkpoint
from npmobilenet.formats.tensorflow.model import convert_checkpoint
from npmobilenet.images.decoding import load_image
from npmobilenet.modeldata import ModelData

SECONDS = 2.0  # of processor time for one file
BYTES = 2**30  # that a process may ask for beyond what it has

# -- damage ------------------------------------------------------------------------------------------------------------

Damaged = Iterator[tuple[int, bytes]]  # the first byte that differs, the content
Damage = Callable[[bytes, random.Random], Damaged]


def cut(every: int, first: int = 200) -> Damage:
    """Cut short: at every place of the first bytes, then at every so many, and before the last bytes."""

    def damage(content: bytes, rng: random.Random) -> Damaged:
        size = len(content)
        ends = {size // 2, size - 48, size - 8, size - 1}
        for length in sorted({*range(min(first, size)), *range(0, size, every), *ends}):
            yield length, content[:length]

    return damage


def bits(count: int = 0, every: int = 0, last: int = 0) -> Damage:
    """One bit flipped: at so many places, in every so many bytes, in each of the last bytes."""

    def damage(content: bytes, rng: random.Random) -> Damaged:
        size = len(content)
        places = [rng.randrange(size) for _ in range(count)] + list(range(0, size, every) if every else ())
        for at in [*places, *range(size - last, size)]:
            yield at, content[:at] + bytes([content[at] ^ 1 << rng.randrange(8)]) + content[at + 1 :]

    return damage


def words(content: bytes, rng: random.Random) -> Damaged:
    """Each 32-bit word a number that breaks lengths and offsets."""
    for at in range(0, len(content) - 3, 4):
        word = rng.choice([b"\xff\xff\xff\xff", b"\xff\xff\xff\x7f", b"\x00\x00\x00\x80", b"\x00\x00\x01\x00"])
        yield at, content[:at] + word + content[at + 4 :]


def runs(count: int) -> Damage:
    """A run of other bytes."""

    def damage(content: bytes, rng: random.Random) -> Damaged:
        for _ in range(count):
            at, size = rng.randrange(len(content)), rng.choice([2, 8, 64, 512])
            yield at, content[:at] + rng.randbytes(size) + content[at + size :]

    return damage


def splices(count: int) -> Damage:
    """Up to eight bytes from elsewhere in the file."""

    def damage(content: bytes, rng: random.Random) -> Damaged:
        for _ in range(count):
            (at, other), size = (rng.randrange(len(content) - 8) for _ in range(2)), rng.randint(1, 8)
            yield at, content[:at] + content[other : other + size] + content[at + size :]

    return damage


def gaps(count: int) -> Damage:
    """A piece cut out; and, last, bytes added."""

    def damage(content: bytes, rng: random.Random) -> Damaged:
        for _ in range(count):
            at, size = rng.randrange(len(content)), rng.choice([1, 8, 512])
            yield at, content[:at] + content[at + size :]
        yield len(content), content + b"more"

    return damage


def overwritten(count: int, first: int = 0) -> Damage:
    """One to four bytes replaced, anywhere or among the first ones."""

    def damage(content: bytes, rng: random.Random) -> Damaged:
        for _ in range(count):
            bad = bytearray(content)
            for _ in range(rng.randint(1, 4)):
                bad[rng.randrange(min(first or len(bad), len(bad)))] = rng.randrange(256)
            yield 0, bytes(bad)

    return damage


# -- the table ---------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Row:
    """A sound file, its reader, what is done to the file, and what may come of it."""

    make: Callable[[Path], Path]  # writes the files into a folder; returns the one to damage
    read: Callable[[Path], Any]
    damages: dict[str, Damage]
    checked: bool = True  # what is read must equal the sound model: the format has sums over all of it
    spared: Callable[[int], range] | None = None  # of a size: where alone damage may go unnoticed
    cut_refused: bool = True  # cut short anywhere, it must be refused
    says: dict[str, str] | None = None  # damage -> what its refusals say, a pattern
    apart: bool = False  # in a process of its own, since nothing promises that HDF5 survives it
    least: int = 0  # refusals for each file that reads as the sound one, at least
    error: type[Exception] | tuple[type[Exception], ...] = ConversionError
    seal: Callable[[bytes], bytes] = bytes  # from the content that is damaged to the file's bytes


def tflite(case: str, **damages: Damage) -> Row:
    def make(folder: Path) -> Path:
        pytest.importorskip("tflite", reason="the extra [convert] is not installed")
        from test_tflite import CASES

        (folder / "m.tflite").write_bytes(CASES[case]().bytes())
        return folder / "m.tflite"

    def read(path: Path) -> ModelData:
        from npmobilenet.formats.tflite.model import convert_tflite

        return convert_tflite(path)

    return Row(make, read, damages, checked=False, cut_refused=False)


def checkpoint(suffix: str) -> Callable[[Path], Path]:
    def make(folder: Path) -> Path:
        prefix = checkpoints.write(folder / "model.ckpt", checkpoints.random_variables())
        return prefix.with_name(prefix.name + suffix)

    return make


def forged_blocks(folder: Path) -> Path:
    """The entries of an index, below its checksums."""
    ones = checkpoints.np.ones(3, "float32")
    entries = [(f"v{i}".encode(), checkpoints.entry(ones, 0, 12 * i)) for i in range(4)]
    (folder / "blocks").write_bytes(checkpoints.block([checkpoints.header(), *entries]))
    return folder / "blocks"


def sealed(kind: int) -> Callable[[bytes], bytes]:
    """Whoever forges a file also forges its checksums: an index of these contents, sums put right."""

    def seal(contents: bytes) -> bytes:
        body = checkpoints.seal(contents, kind)
        index = checkpoints.block([(b"\xff", checkpoints.varint(0) + checkpoints.varint(len(contents)))])
        footer = checkpoints.varint(0) * 2 + checkpoints.varint(len(body)) + checkpoints.varint(len(index))
        return body + checkpoints.seal(index) + footer.ljust(40, b"\0") + struct.pack("<Q", checkpoint_index.MAGIC)

    return seal


def read_entries(path: Path) -> None:
    pairs = list(checkpoint_index.read_table(path.read_bytes(), "here"))
    checkpoint_index._header(pairs[0][1], "here")
    for key, value in pairs[1:]:
        checkpoint_index._entry(key, value, "here")


def own(folder: Path) -> Path:
    weightfile.write(folder / "good.h5", weightfiles.example())
    return folder / "good.h5"


def numbered(folder: Path) -> Path:
    keras.write_numbered(folder / "m.weights.h5", keras.small_variables(), names=True)
    return folder / "m.weights.h5"


def state_dict(suffix: str) -> Callable[[Path], Path]:
    return lambda folder: pytorch.write(folder / f"m{suffix}", pytorch.state_of())


def picture(kind: str, **damages: Damage) -> Row:
    def make(folder: Path) -> Path:
        image = pytest.importorskip("PIL.Image", reason="decodes files: pip install 'npmobilenet[cli]'")
        noise = checkpoints.np.random.default_rng(0).integers(0, 256, (12, 12, 3), "uint8")
        image.fromarray(noise).save(folder / "m", kind)
        return folder / "m"

    def read(path: Path) -> dict[str, Any]:
        found = load_image(path.read_bytes())
        assert (str(found.dtype), found.shape[2]) == ("uint8", 3)
        return {"image": found}

    return Row(make, read, damages, checked=False, cut_refused=False, error=InputError)


def pickled(folder: Path) -> Path:
    weights = {"conv_stem.weight": checkpoints.np.zeros((2, 3), "float32")}
    (folder / "m.pkl").write_bytes(b"\x80\x02" + pytorch_maker.state_pickle(weights)[0] + b".")
    return folder / "m.pkl"


SMALL = {"cut": cut(37), "bits": bits(every=2), "words": words, "runs": runs(50), "gaps": gaps(20)}
OWN = {"cut": cut(97), "bits": bits(900), "runs": runs(200), "gaps": gaps(50)}
LARGE = {"cut": cut(10**5, 20), "bits": bits(100), "runs": runs(10), "gaps": gaps(10)}
FEW = {"cut": cut(10**6, 20), "bits": bits(10, last=10), "runs": runs(5)}
READERS: dict[str, Row] = {
    "tflite, shape arithmetic": tflite("shape arithmetic", **SMALL),
    "tflite, dilated by blocks": tflite("dilated by blocks", **SMALL),
    "tflite, int8 weights": tflite("int8 weights", **SMALL),
    "tflite, shape chain": tflite("shape chain", splices=splices(200)),
    # What the reader doesn't use can't be noticed: the meta-index handle and the footer's padding.
    "checkpoint, index": Row(
        checkpoint(".index"), lambda p: read_checkpoint(p.with_suffix("")),
        {"cut": cut(997), "bits": bits(60, last=48), "runs": runs(20), "gaps": gaps(20)},
        spared=lambda size: range(size - 48, size), says={"cut": r"model\.ckpt\.index'.*expected.*copy"}),
    "checkpoint, data": Row(
        checkpoint(".data-00000-of-00001"), lambda p: convert_checkpoint(p.with_name("model.ckpt")),
        {"cut": cut(10**6, 2), "bits": bits(12), "runs": runs(4)}, spared=lambda size: range(0),
        says={"cut": r"beyond the end of 'model.ckpt.data-.*\(\d+ bytes\).*cut short",
              "bits": r"variable 'MobilenetV1.*CRC-32C 0x.*expected 0x.*copy it again"}),
    **{f"checkpoint, below the sums, block of kind {kind}": Row(
        forged_blocks, read_entries, {"bytes": overwritten(100)}, checked=False, seal=sealed(kind))
       for kind in range(3)},
    # Equal: the damage lay in a gap between HDF5's structures. The 1.8 format has few, older ones reserve more room.
    "weight file": Row(own, weightfile.read, OWN, apart=True, least=5, error=WeightFileError),
    "weight file, older HDF5 format, without checksums": Row(
        lambda folder: weightfiles.forge(folder / "good.h5"), weightfile.read, OWN, apart=True, least=1,
        error=WeightFileError),
    "Keras, layers by name": Row(
        lambda folder: keras.write_legacy(folder / "w.h5", keras.small_variables()), convert_keras, LARGE,
        checked=False, apart=True),
    "Keras, layers by number": Row(numbered, convert_keras, FEW, checked=False, apart=True),
    ".safetensors": Row(state_dict(".safetensors"), read_model, FEW, checked=False),
    ".pth": Row(state_dict(".pth"), read_model, FEW, checked=False),
    "pickle": Row(pickled, lambda p: test_pytorch_hostile.run(p.read_bytes()),
                  {"cut": cut(1), "bytes": overwritten(300)}, checked=False, cut_refused=False,
                  error=(ConversionError, OpcodeError)),
    **{f"image, {kind}": picture(kind, cut=cut(50, 30), bytes=overwritten(50, first=200))
       for kind in ("PNG", "JPEG", "GIF", "BMP", "TIFF", "WEBP", "PPM")},
}  # fmt: skip


# -- the harness -------------------------------------------------------------------------------------------------------


@contextlib.contextmanager
def bounded() -> Iterator[None]:
    """Warnings are errors, and no more than BYTES can be had, where the platform has limits."""
    with warnings.catch_warnings(), contextlib.ExitStack() as stack:
        warnings.simplefilter("error")
        if sys.platform == "linux":
            import resource

            old = resource.getrlimit(resource.RLIMIT_AS)
            used = int(Path("/proc/self/statm").read_text(encoding="ascii").split()[0]) * resource.getpagesize()
            stack.callback(resource.setrlimit, resource.RLIMIT_AS, old)
            resource.setrlimit(resource.RLIMIT_AS, (used + BYTES, old[1]))
        yield


def facts(read: Any) -> Any:
    """What makes a model or a dictionary of arrays equal to another."""
    tensors = read.tensors if isinstance(read, ModelData) else read
    arrays = {name: (str(a.dtype), a.shape, a.tobytes()) for name, a in (tensors or {}).items()}
    if isinstance(read, ModelData):
        return read.graph, read.graph.to_json(), read.info, list(arrays), arrays
    return list(arrays), arrays


def refusal(read: Callable[[Path], Any], path: Path, kind: Any = ConversionError) -> tuple[str, Any]:
    """The message of the error, or "" and what was read."""
    start = time.process_time()
    message, found = "", None
    try:
        found = read(path)
    except kind as error:
        message = str(error)
        assert message, "an error without a message"
        assert message.isprintable(), message
        assert kind is not WeightFileError or str(path) in message, message
    assert time.process_time() - start < SECONDS, f"{time.process_time() - start:.1f} s"
    return message, found


def try_all(row: Row, folder: Path) -> Counter[str]:
    """Damage the row's file in all ways; returns how many were refused and how many read."""
    path = row.make(folder)
    sound = path.read_bytes()
    want, counts, rng = facts(row.read(path)) if row.checked else None, Counter[str](), random.Random(7)
    with bounded():
        for name, damage in row.damages.items():
            for number, (at, content) in enumerate(damage(sound, rng)):
                if content == sound:
                    continue
                path.write_bytes(row.seal(content))
                where = f"{name} {number}, at byte {at} of {len(sound)}"
                try:
                    message, found = refusal(row.read, path, row.error)
                except Exception as error:
                    raise AssertionError(f"{where}: {type(error).__name__}: {error}") from error
                counts["refused" if message else "read"] += 1
                if message:
                    assert re.search((row.says or {}).get(name, ""), message), f"{where}: {message}"
                    continue
                assert not (name == "cut" and row.cut_refused), where
                if row.checked:
                    assert facts(found) == want, where
                    assert row.spared is None or name != "bits" or at in row.spared(len(sound)), where
    return counts


PROGRAM = """
import sys; sys.path[:0] = sys.argv[3:]
import json, pathlib, test_damage
print(json.dumps(test_damage.try_all(test_damage.READERS[sys.argv[1]], pathlib.Path(sys.argv[2]))))
"""


@pytest.mark.parametrize("name", [name for name, row in READERS.items() if not row.apart])
def test_damaged_files(tmp_path: Path, name: str) -> None:
    counts = try_all(READERS[name], tmp_path)
    assert counts["refused"] > 0


@pytest.mark.parametrize("name", [name for name, row in READERS.items() if row.apart])
def test_damaged_hdf5_files(tmp_path: Path, name: str) -> None:
    command = [sys.executable, "-c", PROGRAM, name, str(tmp_path), *map(str, weightfiles.MODULES)]
    done = subprocess.run(command, check=False, capture_output=True, text=True, timeout=240)
    assert done.returncode == 0, done.stderr[-2000:]
    counts = json.loads(done.stdout)
    assert counts["refused"] > READERS[name].least * counts.get("read", 0)


def planted(fault: str) -> Callable[[Path], Any]:
    """A reader of two bytes, checked by their sum, that is at fault when the sum is wrong."""

    def read(path: Path) -> dict[str, Any]:
        content = path.read_bytes()
        if content != b"\x01\xff":
            if fault == "exception":
                raise KeyError("x")
            if fault == "warning":
                warnings.warn("overflow", RuntimeWarning, stacklevel=1)
            if fault == "time":
                end = time.process_time() + SECONDS
                while time.process_time() < end:
                    pass
            if fault == "memory":
                bytearray(2 * BYTES)
            if fault != "wrong values":
                raise ConversionError("damaged")
        return {"x": checkpoints.np.frombuffer(content, "uint8")}

    return read


@pytest.mark.parametrize("fault", ["none", "exception", "warning", "time", "memory", "wrong values"])
def test_the_harness_notices(tmp_path: Path, fault: str) -> None:
    if fault == "memory" and sys.platform != "linux":
        pytest.skip("this platform has no limit of memory")
    (tmp_path / "x").write_bytes(b"\x01\xff")
    row = Row(lambda folder: folder / "x", planted(fault), {"bits": bits(every=2)})
    if fault == "none":
        assert try_all(row, tmp_path) == {"refused": 1}
        return
    with pytest.raises(AssertionError):
        try_all(row, tmp_path)


def test_flipped_bits_of_a_real_tflite_file(data: Path, tmp_path: Path) -> None:
    from npmobilenet.formats.tflite.model import convert_tflite

    content, rng = (data / "weights" / "person_detect.tflite").read_bytes(), random.Random(3)
    tables = len(content) - 60_000  # TOCO writes tables and quantization parameters at the end
    with bounded():
        for _ in range(60):
            at = rng.randrange(tables, len(content))
            bad = content[:at] + bytes([content[at] ^ 1 << rng.randrange(8)]) + content[at + 1 :]
            (tmp_path / "bad.tflite").write_bytes(bad)
            refusal(convert_tflite, tmp_path / "bad.tflite")


@pytest.mark.parametrize("suffix", [".index", ".data-00000-of-00001"])
def test_a_damaged_real_checkpoint(data: Path, tmp_path: Path, suffix: str) -> None:
    """The same as the made one: cut short, and bits flipped, of the index and of the data."""

    def make(folder: Path) -> Path:
        for file in (data / "golden" / "slim" / checkpoints.SMALL).glob("model.ckpt*"):
            shutil.copyfile(file, folder / file.name)
        return folder / f"model.ckpt{suffix}"

    row = READERS["checkpoint, index" if suffix == ".index" else "checkpoint, data"]
    try_all(
        Row(make, row.read, {n: row.damages[n] for n in ("cut", "bits")}, spared=row.spared, says=row.says), tmp_path
    )

"""Loading images, and the guards of images and input tensors: every refusal names its remedy."""

from __future__ import annotations

import io
import os
import struct
import subprocess
import sys
import warnings
import zlib
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from platforms import make_pipe

from npmobilenet.errors import InputError, MissingExtra
from npmobilenet.images import decoding
from npmobilenet.images.decoding import MAX_SIDE, each_image, load_image, load_images
from npmobilenet.images.inputs import check_input
from npmobilenet.images.recipes import RECIPES, preprocess

F32 = np.float32


def noise(height: int, width: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 256, (height, width, 3), dtype=np.uint8)


@pytest.fixture(scope="module")
def pillow() -> Any:
    return pytest.importorskip("PIL.Image", reason="decodes files: pip install 'npmobilenet[cli]'")


# ---------------------------------------------------------------------------------------------------------------------
# Loading


def encode(image: Any, format: str, **options: Any) -> bytes:
    stream = io.BytesIO()
    image.save(stream, format, **options)
    return stream.getvalue()


def png_that_declares(width: int, height: int) -> bytes:
    def chunk(kind: bytes, body: bytes) -> bytes:
        return struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))

    header = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    body = chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(b"\0" * 100)) + chunk(b"IEND", b"")
    return b"\x89PNG\r\n\x1a\n" + body


def test_grey_is_pillows(pillow: Any, tmp_path: Path) -> None:
    """ITU-R 601 as Pillow's mode "L", of whatever holds an image; what is grey already stays."""
    image = noise(61, 47)
    image[:3] = [[[0, 0, 0]], [[255, 255, 255]], [[255, 0, 1]]]
    picture = pillow.fromarray(image)
    grey = np.asarray(picture.convert("L"))[:, :, None]
    picture.save(tmp_path / "colours.png")
    pillow.fromarray(grey[:, :, 0]).save(tmp_path / "grey.png")
    sources = [
        picture,
        image,
        encode(picture, "PNG"),
        tmp_path / "colours.png",
        tmp_path / "grey.png",
        grey,
        grey[:, :, 0],
    ]
    for found in (*load_images(sources, channels=1), *(load() for load in each_image(sources, channels=1))):
        assert (found.dtype, found.shape) == (np.uint8, grey.shape)
        np.testing.assert_array_equal(found, grey)
    for batch in (np.stack([image, image]), np.stack([grey, grey])):
        np.testing.assert_array_equal(np.stack(load_images(batch, channels=1)), np.stack([grey, grey]))
    for recipe in RECIPES:
        x = preprocess(image, 16, recipe, channels=1)
        np.testing.assert_array_equal(x, preprocess(np.repeat(grey, 3, axis=2), 16, recipe)[..., :1])
    for bad in (np.zeros((5, 5, 2), np.uint8), np.zeros((2, 5, 5), np.uint8), np.zeros((5, 5), F32)):
        with pytest.raises(InputError, match=r"expected a uint8 array \(height, width, 3 or 1\)"):
            load_image(bad, channels=1)
    with pytest.raises(InputError, match=r"an input of 4 channels: pictures have 3, or 1 if grey"):
        preprocess(image, 16, channels=4)


@pytest.mark.parametrize("format", ["PNG", "BMP", "PPM", "TIFF", "WEBP"])
def test_lossless_files(pillow: Any, tmp_path: Path, format: str) -> None:
    image = noise(11, 7)
    content = encode(pillow.fromarray(image), format, **({"lossless": True} if format == "WEBP" else {}))
    (tmp_path / "image").write_bytes(content)
    for source in (tmp_path / "image", str(tmp_path / "image"), os.fsencode(tmp_path / "image"), content):
        if isinstance(source, bytes) and source != content:
            continue  # bytes are contents, not a path
        found = load_image(source)
        np.testing.assert_array_equal(found, image)
        assert found.dtype == np.uint8
    np.testing.assert_array_equal(load_image(pillow.fromarray(image)), image)


def test_modes(pillow: Any) -> None:
    rgb, alpha = noise(6, 5), noise(6, 5, seed=1)[:, :, :1]
    grey = np.repeat(rgb[:, :, :1], 3, axis=2)
    np.testing.assert_array_equal(load_image(encode(pillow.fromarray(rgb[:, :, 0]), "PNG")), grey)
    rgba = pillow.fromarray(np.concatenate([rgb, alpha], axis=2))
    np.testing.assert_array_equal(load_image(encode(rgba, "PNG")), rgb)  # alpha is dropped, not blended
    palette = pillow.fromarray(np.array([[0, 1]], np.uint8), "L").convert("P")
    palette.putpalette([10, 20, 30, 40, 50, 60])
    for fmt, more in (("PNG", {"transparency": 0}), ("GIF", {})):
        np.testing.assert_array_equal(load_image(encode(palette, fmt, **more)), [[[10, 20, 30], [40, 50, 60]]])
    cmyk = load_image(encode(pillow.new("CMYK", (8, 8), (255, 0, 0, 0)), "JPEG", quality=100))
    np.testing.assert_allclose(cmyk[4, 4], [0, 255, 255], atol=2)
    np.testing.assert_array_equal(load_image(encode(pillow.new("1", (2, 1), 1), "PNG")), np.full((1, 2, 3), 255))


def test_16_bit_grey_keeps_the_high_byte(pillow: Any) -> None:
    deep = np.array([[0, 255, 256, 0x1234, 0xFFFF]], np.uint16)
    for fmt in ("PNG", "TIFF"):
        found = load_image(encode(pillow.fromarray(deep), fmt))
        assert found[0, :, 0].tolist() == [0, 0, 1, 0x12, 255]


def test_32_bit_is_refused(pillow: Any) -> None:
    with pytest.raises(InputError, match="32-bit"):
        load_image(encode(pillow.fromarray(np.ones((2, 2), F32)), "TIFF"))


def test_animation_gives_its_first_frame(pillow: Any) -> None:
    frames = [pillow.new("RGB", (4, 4), color) for color in ((255, 0, 0), (0, 0, 255))]
    content = encode(frames[0], "GIF", save_all=True, append_images=frames[1:])
    assert load_image(content)[2, 2].tolist() == [255, 0, 0]


def test_exif_orientation(pillow: Any) -> None:
    image = noise(4, 9)
    exif = pillow.Exif()
    exif[0x0112] = 6  # the camera was turned: rotate by 90 degrees clockwise
    content = encode(pillow.fromarray(image), "PNG", exif=exif)
    np.testing.assert_array_equal(load_image(content), np.rot90(image, -1))
    np.testing.assert_array_equal(load_image(content, exif_orientation=False), image)
    assert load_images([content], exif_orientation=False)[0].shape == (4, 9, 3)


def test_bad_files(pillow: Any, tmp_path: Path) -> None:
    text = tmp_path / "text.jpg"
    text.write_text("Hello, I am not a picture")
    (tmp_path / "empty.png").touch()
    pipe = make_pipe(tmp_path / "pipe")
    (tmp_path / "cut.png").write_bytes(encode(pillow.fromarray(noise(50, 50)), "PNG")[:3000])
    (tmp_path / "cut.jpg").write_bytes(encode(pillow.fromarray(noise(50, 50)), "JPEG")[:1500])
    for name, message in {
        "none.png": "does not exist",
        ".": "is a folder",
        "text.jpg": "is not an image that can be read: it starts with b'Hello, I'",
        "empty.png": "is empty",
        **({"pipe": "not a regular file"} if pipe else {}),
        "cut.png": "truncated or damaged",
        "cut.jpg": "truncated or damaged",
        "nul\0": "can't be read",
    }.items():
        with pytest.raises(InputError, match=message) as caught:
            load_image(tmp_path / name)
        assert str(tmp_path) in str(caught.value)


@pytest.mark.parametrize("size", [(12_000, 12_000), (60_000, 60_000), (70_000, 1), (2**31 - 1, 2**31 - 1), (0, 5)])
def test_declared_size_is_checked_before_decoding(pillow: Any, size: tuple[int, int]) -> None:
    """12,000 squared is where Pillow would only warn, 60,000 squared where it raises an error of its own."""
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        with pytest.raises(InputError, match=r"declares|damaged|not an image"):
            load_image(png_that_declares(*size))


@pytest.mark.parametrize(
    ("source", "message"),
    [
        (np.zeros((3, 8, 8), np.uint8), r"x\.transpose\(1, 2, 0\)"),
        (np.zeros((2, 3, 8, 8), np.uint8), r"x\.transpose\(0, 2, 3, 1\)"),
        (np.zeros((8, 8), np.uint8), r"np\.repeat\(x\[\.\.\., None\], 3"),
        (np.zeros((8, 8, 1), np.uint8), r"np\.repeat\(x, 3"),
        (np.zeros((8, 8, 4), np.uint8), r"x\[\.\.\., :3\]"),
        (np.zeros((2, 8, 8, 4), np.uint8), r"x\[\.\.\., :3\]"),
        (np.zeros((8, 8, 5), np.uint8), "3 channels"),
        (np.zeros(8, np.uint8), "one image, or a batch"),
        (np.zeros((8, 8, 3), F32), r"\(x \* 255\)\.round"),
        (np.zeros((8, 8, 3), np.uint16), r"x >> 8"),
        (np.zeros((8, 8, 3), bool), "astype"),
        (np.array([["a"]]), "astype"),
        (np.zeros((0, 8, 3), np.uint8), "no pixels"),
        (np.zeros((0, 8, 8, 3), np.uint8), "no pixels"),
        (np.zeros((1, MAX_SIDE + 1, 3), np.uint8), "65,535"),
        ([], "empty list"),
        ((), "empty list"),
        ([[1, 2], [3, 4]], "image 0 of the list is itself a list"),
        ([np.zeros((2, 2, 3), np.uint8), np.zeros((2, 2, 3))], "image 1: expected a uint8"),
        ([np.zeros((1, 2, 2, 3), np.uint8)], "not inside a list"),
        (None, "got NoneType"),
        (5, "got int"),
        (io.BytesIO(b"x"), r"file\.read\(\)"),
        (b"", "is empty"),
    ],
)
def test_bad_sources(source: Any, message: str) -> None:
    with pytest.raises(InputError, match=message) as caught:
        preprocess(source, 8)
    assert len(str(caught.value)) < 350


def test_arrays_need_no_pillow(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setitem(sys.modules, "PIL", None)
    assert preprocess(noise(4, 4), 8, "timm_bicubic").shape == (1, 8, 8, 3)
    (tmp_path / "image.png").write_bytes(b"anything")
    with pytest.raises(MissingExtra, match=r"npmobilenet\[cli\]"):
        load_image(tmp_path / "image.png")


def test_light_import() -> None:
    code = """import sys, npmobilenet.images.recipes, npmobilenet.images.labels
print([m for m in ("PIL", "numba", "h5py") if m in sys.modules])"""
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout == "[]\n"


# ---------------------------------------------------------------------------------------------------------------------
# check_input

SHAPE = (1, 8, 6, 3)


def test_check_input_accepts() -> None:
    x = np.linspace(-1, 1, 2 * 8 * 6 * 3, dtype=F32).reshape(2, 8, 6, 3)
    assert check_input(x, SHAPE, "float32") is x
    strided = np.concatenate([x, x], axis=2)[:, :, ::2]
    found = check_input(strided, SHAPE, "float32")
    assert found.flags.c_contiguous
    np.testing.assert_array_equal(found, strided)
    assert check_input(x * 7.9, SHAPE, "float32").shape == x.shape  # ImageNet mean and std reach 2.64
    assert check_input(x * 1e6, SHAPE, "float32", None).shape == x.shape
    pixels = np.full((1, 8, 6, 3), 200, np.uint8)
    assert check_input(pixels, SHAPE, "uint8") is pixels


BASE = np.zeros((2, 8, 6, 3), F32)
HOLE = BASE.copy()
HOLE[1, 2, 3, 1] = np.nan
INFINITE = BASE.copy()
INFINITE[0, 0, 0, 2] = -np.inf


@pytest.mark.parametrize(
    ("x", "dtype", "message"),
    [
        (BASE.astype(np.float64), "float32", r"expected float32 \(N, 8, 6, 3\).*float64.*x\.astype\(np\.float32\)"),
        (BASE.astype(np.float16), "float32", r"x\.astype\(np\.float32\)"),
        (BASE.astype(">f4"), "float32", r"x\.astype\(np\.float32\)"),
        (BASE.astype(np.uint8), "float32", r"predict\(\)"),
        (BASE.astype(np.int64), "float32", "astype"),
        (BASE, "uint8", "takes integers.*quantize_input"),
        (BASE.astype(np.int8), "uint8", r"astype\(np\.uint8\)"),
        (BASE.transpose(0, 3, 1, 2), "float32", r"NHWC.*transpose\(0, 2, 3, 1\)"),
        (BASE[0].transpose(2, 0, 1), "float32", r"x\.transpose\(1, 2, 0\)\[None\]"),
        (BASE[0], "float32", r"x\[None\]"),
        (BASE[:, :7], "float32", r"expected float32 \(N, 8, 6, 3\), got float32 \(2, 7, 6, 3\)"),
        (BASE[..., :1], "float32", "preprocess"),
        (BASE[:0], "float32", "empty batch"),
        (F32(1), "float32", "expected a NumPy array"),
        (BASE.tolist(), "float32", "got list; use np.asarray"),
        (HOLE, "float32", r"nan at index \(1, 2, 3, 1\)"),
        (INFINITE, "float32", r"-inf at index \(0, 0, 0, 2\)"),
        (BASE + F32(255), "float32", r"from 255 to 255.*-1 to 1.*preprocess\(\)"),
        (BASE - F32(8.1), "float32", "unscaled pixels"),
    ],
)
def test_check_input_refuses(x: Any, dtype: str, message: str) -> None:
    with pytest.raises(InputError, match=message):
        check_input(x, SHAPE, dtype)


@pytest.mark.parametrize("mode", ["1", "L", "P", "RGB", "RGBA", "CMYK", "I;16"])
def test_rows_of_a_large_picture_are_those_of_a_small_one(
    pillow: Any, monkeypatch: pytest.MonkeyPatch, mode: str
) -> None:
    """Brought into RGB a few rows at a time, so that 100 megapixels take no gigabyte beside."""
    picture = pillow.fromarray(noise(37, 23))
    wide = np.arange(37 * 23, dtype=np.uint16).reshape(37, 23) * 76
    picture = pillow.fromarray(wide) if mode == "I;16" else picture.convert(mode)
    content = encode(picture, "TIFF" if mode == "CMYK" else "PNG")
    whole = load_image(content)
    monkeypatch.setattr(decoding, "PIXELS_AT_ONCE", 5 * 23)
    np.testing.assert_array_equal(load_image(content), whole)
    np.testing.assert_array_equal(load_image(picture), whole)


def test_a_webp_file_may_have_half_the_pixels(pillow: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """Its decoder holds several pictures of four bytes a pixel."""
    content = encode(pillow.fromarray(noise(9, 7)), "WEBP")
    assert load_image(content).shape == (9, 7, 3)
    assert decoding.MAX_WEBP_PIXELS == decoding.MAX_PIXELS // 2
    monkeypatch.setattr(decoding, "MAX_WEBP_PIXELS", 62)
    with pytest.raises(InputError, match="declares 7 x 9 pixels, at most 62"):
        load_image(content)


def test_a_users_picture_is_not_turned_in_its_place(pillow: Any) -> None:
    exif = pillow.Exif()
    exif[decoding.ORIENTATION] = 6
    picture = pillow.open(io.BytesIO(encode(pillow.fromarray(noise(6, 9)), "PNG", exif=exif)))
    for _ in range(2):
        assert load_image(picture).shape == (9, 6, 3)
        assert picture.size == (9, 6)
    stream = encode(picture, "PNG", exif=exif)
    np.testing.assert_array_equal(load_image(stream), load_image(picture))

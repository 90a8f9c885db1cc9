"""Image files, bytes and arrays to uint8 RGB arrays (H, W, 3), and the checks of everything that a model is fed.

Whatever is wrong with an image or an input tensor ends here, as an `InputError` that says what, where, what was
expected, and what to do. Pillow decodes files; it is an optional package, and arrays need none.
"""

from __future__ import annotations

import io
import os
import stat
import warnings
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, NoReturn

import numpy as np
from numpy.typing import NDArray

from npmobilenet.errors import InputError, MissingExtra
from npmobilenet.formats.model_path import is_address

if TYPE_CHECKING:
    from PIL import Image as PillowImage

Array = NDArray[Any]
Image = NDArray[np.uint8]
# One image, or several: paths, bytes of files, Pillow images, uint8 arrays (H, W, 3) or (N, H, W, 3).
Source = Any

MAX_PIXELS = 100_000_000  # width x height as declared by a file; 300 MB once decoded
MAX_WEBP_PIXELS = 50_000_000  # whose decoder holds four pictures of four bytes a pixel
ORIENTATION = 0x0112  # the tag of EXIF 2.32, table 4; 1 is upright, 2 to 8 are turned or mirrored
PIXELS_AT_ONCE = 2**24  # that are brought into RGB together
MAX_SIDE = 65_535  # JPEG's limit; a resize of a longer side would need filters of thousands of taps
MAX_FILE_BYTES = 512 * 1024 * 1024
# The decoders that are tried. Pillow has others that start programs (EPS) or that nobody photographs with.
FORMATS = ("BMP", "GIF", "JPEG", "PNG", "PPM", "TIFF", "WEBP")

EMPTY = "an empty list of images: expected at least one path or uint8 array (height, width, 3)"

CHANNELS, GREY = 3, 1
TENSOR = "make its tensor yourself and give it to run()"  # what to do where no picture fits
NHWC = 4  # rank of an input tensor


# ---------------------------------------------------------------------------------------------------------------------
# Loading


def load_images(source: Source, exif_orientation: bool = True, channels: int = CHANNELS) -> list[Image]:
    """Everything that `source` holds, as a list of uint8 arrays (H, W, channels): at least one.

    `source` is one image as for `load_image`, a uint8 batch (N, H, W, 3), or a list or tuple of images.
    Raises `InputError` (and `MissingExtra` where a file is to be decoded and Pillow is absent).
    """
    if isinstance(source, np.ndarray) and source.ndim == NHWC:
        return list(_pixels(source, "the batch", channels))
    if not isinstance(source, (list, tuple)):
        return [load_image(source, exif_orientation, channels=channels)]
    if not source:
        raise InputError(EMPTY)
    return [_item(item, i, exif_orientation, channels) for i, item in enumerate(source)]


def each_image(source: Source, channels: int = CHANNELS) -> Iterator[Callable[[], Image]]:
    """For each image that `source` holds, in order, what loads it: so that loading can be shared among threads.

    `source` and `channels` as for `load_images`, or an iterator of images, which is asked for one only when this is,
    and may be endless. An iterator may reuse what it gave (a camera's buffer), so of it only paths and bytes wait to be
    loaded.

    Raises `InputError`, as what it gives does, in the words of `load_images`.
    """
    if isinstance(source, np.ndarray) and source.ndim == NHWC:
        yield from (partial(load_image, image, channels=channels) for image in _pixels(source, "the batch", channels))
        return
    # A file has lines to give, but isn't meant so.
    endless = isinstance(source, Iterator) and not hasattr(source, "read")
    if not endless and not isinstance(source, (list, tuple)):
        yield partial(load_image, source, channels=channels)
        return
    # Two threads may not decode one Pillow image, which a list may hold twice.
    can_wait = (str, os.PathLike, bytes) if endless else (str, os.PathLike, bytes, np.ndarray)
    i = -1
    for i, item in enumerate(source):
        yield partial(_item, item, i, True, channels) if isinstance(item, can_wait) else _loaded(item, i, channels)
    if i < 0:
        raise InputError(EMPTY)


def _loaded(item: Source, i: int, channels: int) -> Callable[[], Image]:
    """What gives an image that is loaded, and is nobody else's; or raises, when its turn comes, what was wrong."""
    try:
        image = np.array(_item(item, i, True, channels))
    except InputError as error:
        return partial(_fail, error)
    return lambda: image


def _fail(error: InputError) -> NoReturn:
    raise error


def _item(item: Source, i: int, exif_orientation: bool, channels: int) -> Image:
    if isinstance(item, (list, tuple)):
        raise InputError(
            f"image {i} of the list is itself a {type(item).__name__}: expected a path or a uint8 array "
            f"(height, width, 3); convert numbers with np.array(image, dtype=np.uint8)"
        )
    return load_image(item, exif_orientation, f"image {i}", channels)


def load_image(
    source: Source, exif_orientation: bool = True, name: str = "the image", channels: int = CHANNELS
) -> Image:
    """One image as a uint8 array (H, W, 3), RGB, or, with `channels` 1, (H, W, 1), grey.

    `source` is a path, the bytes of an image file, a Pillow image, or a uint8 array (H, W, 3), which is returned as it
    is. Grey, palette and CMYK files become RGB, 16-bit channels keep their high byte, transparency is dropped (as
    TensorFlow and Keras do), an animation gives its first frame. `exif_orientation` turns a photo as its EXIF
    orientation says, so that a phone's picture stands upright; TensorFlow's decoder ignores it (give False for that).
    Where grey is wanted, colours turn grey (`to_grey`), and arrays (H, W) and (H, W, 1) are images, too.

    Raises `InputError`: no such file, not a regular file, empty, not an image, damaged, more than 100 megapixels (WebP:
    50; judged from the header, before decoding), an array of another dtype or layout. `MissingExtra`: no Pillow.
    """
    if isinstance(source, np.ndarray):
        if source.ndim == NHWC:
            raise InputError(
                f"{name}: a batch of shape {source.shape} where one image (height, width, 3) is expected; "
                f"pass the batch itself, not inside a list"
            )
        return _pixels(source, name, channels)
    if isinstance(source, (str, os.PathLike)):
        path = os.fspath(source)
        if isinstance(path, bytes):
            path = os.fsdecode(path)
        if is_address(path):
            raise InputError(f"'{path}' is an address, and nothing is downloaded: save it, and give the file's path")
        return _pixels(_decode(_read(Path(path)), f"'{path}'", exif_orientation), name, channels)
    if isinstance(source, (bytes, bytearray, memoryview)):
        return _pixels(_decode(bytes(source), name, exif_orientation), name, channels)
    if type(source).__module__.partition(".")[0] == "PIL" and hasattr(source, "convert"):
        return _pixels(_guarded(source, name, exif_orientation), name, channels)
    raise InputError(
        f"{name}: expected a path, the bytes of an image file, or a uint8 array (height, width, 3), "
        f"got {type(source).__name__}{_remedy(source)}"
    )


def _pixels(image: Array, where: str, channels: int) -> Image:
    """The image or batch, checked, with this number of channels."""
    if channels not in (CHANNELS, GREY):
        raise InputError(f"an input of {channels} channels: pictures have {CHANNELS}, or {GREY} if grey; {TENSOR}")
    if channels == GREY and image.ndim == 2:
        image = image[:, :, None]
    check_image_array(image, where, channels)
    return image if image.shape[-1] == channels else to_grey(image)


def to_grey(image: Image) -> Image:
    """ITU-R 601 luma of RGB pixels (..., 3), as (..., 1): `(19595 R + 38470 G + 7471 B + 32768) >> 16`.

    The weights are 0.299, 0.587, 0.114 in 1/65536. Source: Pillow, src/libImaging/Convert.c (rgb2l), whose mode "L" it
    equals.
    """
    red, green, blue = (image[..., i : i + 1].astype(np.int32) for i in range(CHANNELS))
    return (19595 * red + 38470 * green + 7471 * blue + 32768 >> 16).astype(np.uint8)


def _remedy(source: object) -> str:
    if hasattr(source, "read"):
        return "; pass its contents, file.read()"
    if hasattr(source, "__array__"):
        return "; convert it with np.asarray"
    return ""


def _read(path: Path) -> bytes:
    try:
        mode = path.stat().st_mode
        if stat.S_ISDIR(mode):
            raise InputError(f"'{path}' is a folder: expected an image file; name the files in it")
        if not stat.S_ISREG(mode):  # a pipe could block for ever
            raise InputError(f"'{path}' is not a regular file: expected an image file")
        if path.stat().st_size > MAX_FILE_BYTES:
            raise InputError(
                f"'{path}' has {path.stat().st_size:,} bytes: expected an image file of at most {MAX_FILE_BYTES:,}"
            )
        return path.read_bytes()
    except FileNotFoundError:
        raise InputError(f"'{path}' does not exist: expected an image file; check the path") from None
    except (OSError, ValueError) as error:  # ValueError: a null character in the path
        reason = getattr(error, "strerror", None) or error
        raise InputError(f"'{path}' can't be read: {reason}") from error


def _decode(content: bytes, where: str, exif_orientation: bool) -> Image:
    if not content:
        raise InputError(f"{where} is empty (0 bytes): expected an image file; fetch it again")
    try:
        from PIL import Image as pillow  # noqa: N813
    except ImportError:
        raise MissingExtra("Pillow", "cli", "Reading image files") from None
    with warnings.catch_warnings():
        # Pillow warns of large images and odd metadata; the size is checked here, and the rest isn't for our users.
        warnings.simplefilter("ignore")
        try:
            image = pillow.open(io.BytesIO(content), formats=FORMATS)
        except pillow.UnidentifiedImageError:
            raise InputError(
                f"{where} is not an image that can be read: it starts with {content[:8]!r}, expected "
                f"{', '.join(FORMATS)}; convert it, or fetch it again"
            ) from None
        except pillow.DecompressionBombError:
            raise InputError(f"{where} declares far more than the {MAX_PIXELS:,} pixels allowed: shrink it") from None
        except Exception as error:  # Pillow's decoders raise errors of many types on damaged files
            raise InputError(f"{where} can't be decoded ({_reason(error)}): it is damaged; fetch it again") from error
    return _guarded(image, where, exif_orientation, own=True)


def _guarded(image: PillowImage.Image, where: str, exif_orientation: bool, own: bool = False) -> Image:
    """The pixels of an image that isn't decoded yet; `own`: nobody else's, so it may be turned in its place."""
    width, height = image.size
    most = MAX_WEBP_PIXELS if image.format == "WEBP" else MAX_PIXELS
    if width * height > most or max(width, height) > MAX_SIDE:
        raise InputError(
            f"{where} declares {width} x {height} pixels, at most {most:,} and {MAX_SIDE:,} on a side are "
            f"allowed: shrink it before use"
        )
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            pixels = _to_rgb(_upright(image, own) if exif_orientation else image, where)
        except InputError:
            raise
        except Exception as error:  # as above: a damaged file
            raise InputError(
                f"{where} can't be decoded ({_reason(error)}): it is truncated or damaged; fetch it again"
            ) from error
    check_image_array(pixels, where)
    return pixels


def _reason(error: Exception) -> str:
    return f"{type(error).__name__}: {str(error)[:120]}"


def _upright(image: PillowImage.Image, own: bool) -> PillowImage.Image:
    from PIL import ImageOps

    image.load()  # a damaged picture is an error, damaged metadata is not
    try:
        turned = image.getexif().get(ORIENTATION, 1) in range(2, 9)
        if turned and own:
            ImageOps.exif_transpose(image, in_place=True)  # a copy would be one of 400 MB
            return image
        return ImageOps.exif_transpose(image) if turned else image  # it copies also what isn't turned
    except Exception:
        return image


def _to_rgb(image: PillowImage.Image, where: str) -> Image:
    wide = image.mode.startswith("I;16") or (image.mode == "I" and image.format in ("PNG", "PPM"))
    if image.mode in ("I", "F") and not wide:
        raise InputError(
            f"{where} holds 32-bit values (mode {image.mode}) of unknown range: convert it to 8 bits a channel"
        )
    pixels = np.empty((image.height, image.width, CHANNELS), np.uint8)
    rows = max(PIXELS_AT_ONCE // image.width, 1)  # what a mode's change needs beside is of so many rows
    for top in range(0, image.height, rows):
        whole = rows >= image.height
        part = image if whole else image.crop((0, top, image.width, min(top + rows, image.height)))
        if wide:  # Pillow's convert would clip at 255
            pixels[top : top + rows] = (np.asarray(part).astype(np.int64) >> 8)[:, :, None]
        else:
            pixels[top : top + rows] = np.asarray(part if part.mode == "RGB" else part.convert("RGB"))
    return pixels


# ---------------------------------------------------------------------------------------------------------------------
# Checking images


def check_image_array(image: Array, where: str, channels: int = CHANNELS) -> None:
    """Refuse what is not a uint8 array (H, W, 3) or (N, H, W, 3), with the expression that mends it.

    Where `channels` is 1, one channel will do as well.

    Raises `InputError` for another dtype, rank, channel count or order, and for empty arrays.
    """
    shape = image.shape
    known = (CHANNELS, channels) if channels == GREY else (CHANNELS,)
    expected = " or ".join(map(str, known))
    what = f"{where}: expected a uint8 array (height, width, {expected}), got {image.dtype} {shape}"
    if image.dtype != np.uint8:
        raise InputError(f"{what}; {_dtype_remedy(image)}")
    if 0 in shape:
        raise InputError(f"{what}, which holds no pixels")
    if image.ndim in (3, NHWC) and shape[-1] in known:
        if max(shape[-3:-1]) > MAX_SIDE:
            raise InputError(f"{what}; at most {MAX_SIDE:,} pixels on a side are allowed: shrink it before use")
        return
    remedies = {2: "a grey image becomes RGB with np.repeat(x[..., None], 3, axis=-1)"}
    if image.ndim in (3, NHWC):
        axes = (1, 2, 0) if image.ndim == CHANNELS else (0, 2, 3, 1)
        remedies[image.ndim] = {
            shape[-3] == CHANNELS: f"channels come last: x.transpose{axes}",
            shape[-1] == 1: "a grey image becomes RGB with np.repeat(x, 3, axis=-1)",
            shape[-1] == 4: "drop the alpha channel: x[..., :3]",
        }.get(True, "the last dimension must be the 3 channels, red, green, blue")
    raise InputError(f"{what}; {remedies.get(image.ndim, 'one image, or a batch (N, height, width, 3)')}")


def _dtype_remedy(image: Array) -> str:
    if image.dtype.kind == "f":
        return (
            "pixels from 0 to 1 become uint8 with (x * 255).round().astype(np.uint8), from 0 to 255 with "
            "x.round().astype(np.uint8); a preprocessed tensor goes to run() instead"
        )
    if image.dtype.kind in "iu":
        return "where all values lie from 0 to 255, use x.astype(np.uint8); 16-bit pixels need (x >> 8) first"
    return "convert it with astype(np.uint8)"

"""Preparing images by threads: order, bound, errors, threads that end; and `predict` and `classify` made with it."""

from __future__ import annotations

import io
import json
import threading
import time
import tracemalloc
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from click.testing import CliRunner
from models import random_weights, tiny
from PIL import Image as pillow  # noqa: N813

import npmobilenet as nm
from npmobilenet.cli.app import app
from npmobilenet.errors import InputError
from npmobilenet.formats import weightfile
from npmobilenet.images import prefetch
from npmobilenet.images.decoding import each_image
from npmobilenet.model import AHEAD, CHUNK, Model
from npmobilenet.modeldata import ModelData, ModelInfo

LABELS = tuple("abcdefghij")


@pytest.fixture(scope="module")
def model() -> Model:
    graph = tiny().graph
    return Model(ModelData(graph, random_weights(graph), ModelInfo("tiny", LABELS)), threads=1)


@pytest.fixture(autouse=True)
def threads_end() -> Iterator[None]:
    before = set(threading.enumerate())
    yield
    assert set(threading.enumerate()) <= before


def picture(i: int, side: int = 40) -> np.ndarray[Any, np.dtype[np.uint8]]:
    return np.random.default_rng(i).integers(0, 256, (side, side + i % 5, 3), np.uint8)


def png(i: int) -> bytes:
    file = io.BytesIO()
    pillow.fromarray(picture(i)).save(file, "png")
    return file.getvalue()


# -- in_order ----------------------------------------------------------------------------------------------------------


def test_order_and_bound() -> None:
    """Results in the order of the items, however long each takes; taken and not yet handed out: at most `ahead`."""
    taken = handed = most = 0

    def items() -> Iterator[int]:
        nonlocal taken, most
        for i in range(200):
            taken += 1
            most = max(most, taken - handed)
            yield i

    def work(i: int) -> int:
        time.sleep(0.002 if i % 7 == 0 else 0)
        return i * i

    with prefetch.in_order(work, items(), 5) as results:
        for i in range(200):
            assert next(results) == i * i
            handed += 1
        assert next(results, None) is None
    # The one that the block gets next is taken from the five, and another item takes its place before that.
    assert most == 5


def test_work_is_done_by_other_threads() -> None:
    with prefetch.in_order(lambda _: threading.current_thread().name, range(9), 4) as results:
        names = set(results)
    assert all(name.startswith("npmobilenet-images") for name in names)
    assert len(names) <= min(prefetch.MOST_READERS, prefetch.cores())


@pytest.mark.parametrize("items", [[], [7]])
def test_no_threads_for_one(items: list[int]) -> None:
    with prefetch.in_order(lambda i: (i, threading.current_thread()), iter(items), 4) as results:
        assert list(results) == [(i, threading.current_thread()) for i in items]


def test_an_error_comes_in_its_turn_and_ends_the_work() -> None:
    done: list[int] = []

    def work(i: int) -> int:
        if i == 20:
            raise InputError("image 20 is bad")
        done.append(i)
        return i

    got = []
    endless = iter(range(10**12))
    with pytest.raises(InputError, match="image 20 is bad"), prefetch.in_order(work, endless, 6) as results:
        got.extend(iter(lambda: next(results), None))
    assert next(endless) <= 20 + 6
    assert max(done) < 20 + 6


@pytest.mark.parametrize("error", [KeyboardInterrupt, ValueError])
def test_leaving_early(error: type[BaseException]) -> None:
    """What the block raises leaves it at once: items that were not begun are dropped."""
    begun: list[int] = []

    def work(i: int) -> None:
        begun.append(i)
        time.sleep(0.01)

    with pytest.raises(error), prefetch.in_order(work, range(1000), 100) as results:  # noqa: PT012
        next(results)
        raise error
    assert len(begun) < 50


def test_an_error_of_the_source() -> None:
    def items() -> Iterator[int]:
        yield from range(10)
        raise OSError("the camera is gone")

    with pytest.raises(OSError, match="the camera"), prefetch.in_order(abs, items(), 3) as results:
        list(results)


def test_batches() -> None:
    assert list(prefetch.batches(range(7), 3)) == [[0, 1, 2], [3, 4, 5], [6]]
    assert list(prefetch.batches(range(6), 3)) == [[0, 1, 2], [3, 4, 5]]
    assert list(prefetch.batches([], 3)) == []


# -- predict -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("count", [1, 2, CHUNK, 3 * CHUNK + 5])
def test_predict_equals_a_plain_loop(model: Model, tmp_path: Path, count: int) -> None:
    expected = [model.predict(picture(i))[0] for i in range(count)]
    sources: list[Callable[[int], Any]] = [picture, png, tmp_path.joinpath, lambda i: pillow.fromarray(picture(i))]
    for i in range(count):
        (tmp_path / f"{i}").write_bytes(png(i))
    sources[2] = lambda i: tmp_path / f"{i}"
    for source in sources:
        assert model.predict([source(i) for i in range(count)]) == expected
        assert model.predict(source(i) for i in range(count)) == expected
    stack = np.stack([picture(5 * i) for i in range(count)])
    assert model.predict(stack) == [model.predict(image)[0] for image in stack]


def test_predict_of_an_iterator_that_reuses_its_array(model: Model) -> None:
    def frames() -> Iterator[Any]:
        buffer = picture(0)
        for i in range(40):
            buffer[:] = picture(5 * i)
            yield buffer

    assert model.predict(frames()) == [model.predict(picture(5 * i))[0] for i in range(40)]


def test_predict_of_an_animation(model: Model) -> None:
    """Pillow's iterator gives one object again and again."""
    from PIL import ImageSequence

    file = io.BytesIO()
    frames = [pillow.fromarray(picture(5 * i)) for i in range(4)]
    frames[0].save(file, "png", save_all=True, append_images=frames[1:])
    found = model.predict(ImageSequence.Iterator(pillow.open(file)))
    assert found == [model.predict(picture(5 * i))[0] for i in range(4)]


def test_predict_takes_from_an_iterator_only_what_it_needs(model: Model, monkeypatch: pytest.MonkeyPatch) -> None:
    taken = done = most = 0
    run = Model.run

    def counting(self: Model, x: Any) -> Any:
        nonlocal done
        done += len(x)
        return run(self, x)

    def many() -> Iterator[Any]:
        nonlocal taken, most
        image = picture(0, 8)
        for _ in range(10_000):
            taken += 1
            most = max(most, taken - done)
            yield image

    monkeypatch.setattr(Model, "run", counting)
    monkeypatch.setattr(model, "preprocess", lambda image, recipe=None: np.zeros((1, 32, 32, 3), np.float32))
    assert len(model.predict(many(), top=1)) == 10_000
    assert most <= AHEAD + CHUNK


def test_predict_needs_constant_memory(model: Model) -> None:
    """50 and 500 pictures of 480 KB, arrays and files: the peak is the same but for the results."""

    def peak(make: Callable[[int], Any], count: int) -> int:
        tracemalloc.start()
        try:
            assert len(model.predict((make(i) for i in range(count)), top=1)) == count
            return tracemalloc.get_traced_memory()[1]
        finally:
            tracemalloc.stop()

    file = io.BytesIO()
    pillow.fromarray(picture(0, 400)).resize((400, 400)).save(file, "png", compress_level=0)
    for make in (lambda i: np.full((400, 400, 3), i % 256, np.uint8), lambda i: bytearray(file.getvalue())):
        model.predict(make(i) for i in range(30))  # plans and imports
        few, many = peak(make, 50), peak(make, 500)
        # 500 results of one tuple in one list take about 0.2 KB each; a few pictures more or fewer exist at the peak.
        assert many < few + 8 * 480_000
        assert many < 50 * 480_000  # 500 of them have 240 MB


BAD = {
    "a path": ("absent.jpg", "'absent.jpg' does not exist"),
    "bytes": (b"no picture", "image 11 is not an image"),
    "a float array": (np.zeros((8, 8, 3)), r"image 11: expected a uint8 array .* got float64"),
    "a batch": (np.zeros((2, 8, 8, 3), np.uint8), r"image 11: a batch of shape \(2, 8, 8, 3\)"),
    "a list": ([1, 2], "image 11 of the list is itself a list"),
    "None": (None, "image 11: expected a path, .* got NoneType"),
}


@pytest.mark.parametrize("name", BAD)
def test_predict_says_which_image_is_bad(model: Model, name: str) -> None:
    bad, message = BAD[name]
    taken = 0

    def source() -> Iterator[Any]:
        nonlocal taken
        for i in range(1000):
            taken += 1
            yield bad if i in (11, 13) else picture(i)

    with pytest.raises(InputError, match=message) as plain:
        model.preprocess(list(source()))
    with pytest.raises(InputError) as listed:
        model.predict(list(source()))
    taken = 0
    with pytest.raises(InputError) as iterated:
        model.predict(source())
    assert str(plain.value) == str(listed.value) == str(iterated.value)
    assert taken <= 11 + AHEAD + CHUNK


def test_predict_refuses_as_ever(model: Model) -> None:
    for images, message in (
        ([], "an empty list of images"),
        (iter(()), "an empty list of images"),
        (io.BytesIO(png(0)), r"the image: .* got BytesIO; pass its contents, file.read\(\)"),
        ({1, 2}, "the image: expected a path, .* got set"),
        (np.zeros((0, 8, 8, 3), np.uint8), "the batch: .* holds no pixels"),
        (np.zeros((2, 3, 8, 8), np.uint8), "the batch: .* channels come last"),
    ):
        with pytest.raises(InputError, match=message):
            model.predict(images)
    with pytest.raises(InputError, match="unknown preprocessing recipe"):
        model.predict(["absent.jpg"] * 2, recipe="x")
    with pytest.raises(InputError, match="top: expected"):
        model.predict([picture(0)] * 2, top=0)


def test_one_image_needs_no_pool(model: Model, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(prefetch, "_results", None)
    for one in (picture(0), [picture(0)], iter([picture(0)]), picture(0)[None]):
        assert len(model.predict(one)) == 1


def test_an_interrupt_leaves_no_threads(model: Model, monkeypatch: pytest.MonkeyPatch) -> None:
    def interrupted(self: Model, x: Any) -> Any:
        raise KeyboardInterrupt

    monkeypatch.setattr(Model, "run", interrupted)
    with pytest.raises(KeyboardInterrupt):
        model.predict(picture(i) for i in range(10_000))


def test_each_image_loads_nothing_early(monkeypatch: pytest.MonkeyPatch) -> None:
    loads = list(each_image(["absent.jpg", png(3)]))
    assert np.array_equal(loads[1](), picture(3))
    with pytest.raises(InputError, match="does not exist"):
        loads[0]()


# -- classify ----------------------------------------------------------------------------------------------------------


def test_classify_many(tmp_path: Path) -> None:
    """Many images, some of them bad: lines and documents as for each image alone, errors in their places."""
    graph = tiny().graph
    weightfile.write(tmp_path / "m.h5", ModelData(graph, random_weights(graph), ModelInfo("tiny", LABELS)))
    names = [str(tmp_path / f"{i}.png") for i in range(2 * AHEAD + 3)]
    for i, name in enumerate(names):
        Path(name).write_bytes(png(i) if i % 9 else b"no picture")
    command = ["classify", *names, "--model", str(tmp_path / "m.h5"), "--threads", "1"]
    result = CliRunner().invoke(app, [*command, "--json"])
    assert result.exit_code == 2
    images = json.loads(result.stdout)["images"]
    assert [image["image"] for image in images] == names
    loaded = nm.load(tmp_path / "m.h5", threads=1)
    for i, image in enumerate(images):
        if i % 9:
            expected = loaded.predict(picture(i))[0]
            assert [(p["class_id"], p["label"], p["score"]) for p in image["predictions"]] == expected
        else:
            assert f"'{names[i]}' is not an image" in image["error"]
    text = CliRunner().invoke(app, command)
    assert [line for line in text.stdout.splitlines() if line in names] == [n for i, n in enumerate(names) if i % 9]
    assert text.stdout.count("\n\n") == len([i for i in range(len(names)) if i % 9]) - 1
    assert text.stderr == result.stderr
    assert text.stderr.count("error: ") == len(range(0, len(names), 9))

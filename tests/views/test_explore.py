"""The page of `npmobilenet explore`: what it holds, who is served, and that a browser computes what the engine did."""

from __future__ import annotations

import dataclasses
import http.client
import importlib.util
import json
import re
import runpy
import threading
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from models import images, tiny

from npmobilenet.arithmetic.dialects import DIALECTS
from npmobilenet.cli.app import run
from npmobilenet.errors import InputError
from npmobilenet.formats.layer_names import short_names
from npmobilenet.graph import Graph
from npmobilenet.model import Model
from npmobilenet.modeldata import ModelData
from npmobilenet.quantize import calibrate, quantize
from npmobilenet.views import explore_page
from npmobilenet.views.explore_page import page
from npmobilenet.views.explore_server import ExploreServer
from npmobilenet.views.explorer import Explorer, argument, packed, words

HOSTILE = "</script><img src=x onerror='document.title=1'>"
SIX_MB = 6_000_000
CLICKS = 120  # in all on each page; 1,000 were tried


def unpacked(blob: bytes, like: np.ndarray) -> np.ndarray:
    """What page/explore.js does with a blob."""
    raw = np.frombuffer(zlib.decompress(blob), np.uint8)
    shape = (like.shape[-1], *like.shape[:-1])
    if like.itemsize > 1:
        mask = np.unpackbits(raw[: (like.size + 7) // 8])[: like.size].astype(bool)
        flat = np.zeros(like.size, "<u4")
        flat[mask] = np.ascontiguousarray(raw[(like.size + 7) // 8 :].reshape(4, -1).T).view("<u4").reshape(-1)
        raw = flat
    return np.moveaxis(raw.view(like.dtype).reshape(shape), 0, -1)


@pytest.mark.parametrize("dtype", ["float32", "int8", "uint8", "int32"])
def test_values_come_back(dtype: str) -> None:
    array = (np.random.default_rng(0).integers(-3, 4, (1, 5, 7, 3)) * np.float32(11.3)).astype(np.int64).astype(dtype)
    assert unpacked(packed(words(array)), array).tobytes() == array.tobytes()


def test_bytes_as_text() -> None:
    """Seven bits for a character, none of which HTML would change or take for a tag."""
    blob = np.random.default_rng(0).integers(0, 256, 10_000, np.uint8).tobytes()
    text = explore_page._text(blob)
    assert not re.search("[\0\r<]", text)
    bits = np.array([[ord(c) >> k & 1 for k in range(6, -1, -1)] for c in text], np.uint8).reshape(-1)
    assert np.packbits(bits[: 8 * len(blob)]).tobytes() == blob
    assert len(text.encode()) < len(blob) * 1.18


def test_arguments_as_json() -> None:
    assert argument(np.float32(0.5)) == 0.5
    assert argument((1, np.int32(2))) == [1, 2]
    assert argument(np.array([[1.0, np.inf], [np.nan, -np.inf]])) == [[1, "Infinity"], ["NaN", "-Infinity"]]


def renamed(data: ModelData, name: str) -> ModelData:
    """The model with a label, a tensor and a name that try to end the script."""
    text = data.graph.to_json().replace(json.dumps(data.graph.outputs[0])[1:-1], json.dumps(name)[1:-1])
    graph = Graph.from_json(text)
    labels = tuple(f"{name}{i}" for i in range(10))
    return ModelData(graph, data.tensors, dataclasses.replace(data.info, name=name, labels=labels))


def test_names_stay_text() -> None:
    """A hostile label, tensor or file name ends no element: there are as many tags as in any page."""
    model = tiny("reference")
    plain = page(Explorer(model, {"input": images(1)}, "a.png"), alone=True)
    evil = Model(renamed(model.data, HOSTILE), "reference")
    text = page(Explorer(evil, {"input": images(1)}, HOSTILE), alone=True)
    assert HOSTILE not in text
    assert "<img" not in text
    assert text.count("<script") == plain.count("<script") == text.count("</script")
    document = json.loads(text.split('id="document">')[1].split("</script>")[0])
    assert document["model"] == document["picture"] == HOSTILE
    assert "innerHTML" not in text


def test_too_large_for_a_page_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(explore_page, "MOST_BYTES", 1000)
    with pytest.raises(InputError, match="use --serve"):
        page(Explorer(tiny("reference"), {"input": images(1)}, "a.png"), alone=True)


@pytest.mark.parametrize(
    ("names", "short"),
    [
        (["A/A/Conv2d_0/Relu6;A/A/Conv2d_0/add_fold", "A/A/Conv2d_1_depthwise/Relu6;b", "A/Logits/Conv/BiasAdd"],
         ["Conv2d_0", "Conv2d_1_depthwise", "Logits/Conv"]),
        (["l_2/depthwise", "l_2/output", "l_3/depthwise", "l_3/output", "input"],
         ["l_2/depthwise", "l_2/output", "l_3/depthwise", "l_3/output", "input"]),
        (["m/a/Relu", "m/a/BiasAdd", "m/b/Relu", "m/c/Relu", "Identity"],
         ["a/Relu", "a/BiasAdd", "b", "c", "Identity"]),
        (["x;1", "x;2", ";", "Relu6;BiasAdd"], ["x;1", "x;2", ";", "Relu6"]),
        (["StatefulPartitionedCall/m/c/Relu6", "m/d/Relu6"], ["c", "d"]),
    ],
)  # fmt: skip
def test_names_are_shortened_for_people(names: list[str], short: list[str]) -> None:
    assert list(short_names(names).values()) == short


# -- the server --------------------------------------------------------------------------------------------------------


@pytest.fixture
def served() -> Iterator[ExploreServer]:
    with ExploreServer(Explorer(tiny("reference"), {"input": images(1)}, "a.png")) as server:
        thread = threading.Thread(target=server.serve_forever, daemon=True)
        thread.start()
        yield server
        server.shutdown()


def get(server: ExploreServer, path: str, host: str | None = None) -> tuple[int, str, bytes]:
    connection = http.client.HTTPConnection("127.0.0.1", server.server_port, timeout=60)
    connection.request("GET", path, headers={} if host is None else {"Host": host})
    answer = connection.getresponse()
    found = answer.status, answer.headers["Content-Type"], answer.read()
    connection.close()
    return found


def test_what_is_served(served: ExploreServer) -> None:
    assert served.server_address[0] == "127.0.0.1"
    status, kind, body = get(served, "/")
    assert (status, kind) == (200, "text/html; charset=utf-8")
    assert b'id="blob-' not in body
    assert len(body) < 150_000
    layers = json.loads(body.decode().split('id="document">')[1].split("</script>")[0])["layers"]
    for i, layer in enumerate(layers[1:], 1):
        found = json.loads(get(served, f"/layer/{i}")[2])
        assert found["variants"][found["dialects"][0]][0]["kernel"].startswith(
            ("pointwise", layer["op"]) if layer["op"] != "fully_connected" else "fully"
        )
    key = served.explorer.blob_keys[-1]
    assert get(served, f"/blob/{key}")[2] == served.explorer.blob(key)


@pytest.mark.parametrize(
    "path",
    ["/../etc/passwd", "/layer/0", "/layer/9999", "/layer/x", "/layer/-1", "/blob/c0", "/blob/v0.1", "/blob/v99999.0",
     "/blob/", "/blob/v1", "/blob/v1.-1", "/blob/v%31.0", "/favicon.ico", "/blob/v" + "9" * 5000],
)  # fmt: skip
def test_what_is_not_there(served: ExploreServer, path: str) -> None:
    assert get(served, path)[0] == 404


def test_other_hosts_are_refused(served: ExploreServer) -> None:
    """A page elsewhere whose name is made to lead to 127.0.0.1 gets nothing."""
    assert get(served, "/", "example.org")[0] == 403
    assert get(served, "/", f"localhost:{served.server_port}")[0] == 200


def test_a_port_that_is_taken(served: ExploreServer) -> None:
    with pytest.raises(InputError, match=r"port \d+ of 127\.0\.0\.1"):
        ExploreServer(served.explorer, served.server_port)


@pytest.mark.parametrize("arguments", [[], ["-o", "a.html", "--serve"]])
def test_one_of_page_and_server(arguments: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["explore", *arguments]) == 2
    assert "expected one of --output PAGE and --serve" in capsys.readouterr().err


# -- in a browser ------------------------------------------------------------------------------------------------------

NO_BROWSER = "no Chromium with its driver here (apt-get install chromium chromium-driver; pip install -e '.[dev]')"
PICTURES = runpy.run_path(str(Path(__file__).parents[2] / "tools" / "make_pictures.py"))


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    found = PICTURES["found_chromium"]()
    if not (found and importlib.util.find_spec("selenium")):
        pytest.skip(NO_BROWSER)
    driver = PICTURES["chromium"](*found)
    yield driver
    driver.quit()


# Clicks: a layer's tab, a channel among all, a value of the enlarged one, as a mouse would; then what the page says.
CLICK = """
const [seed, count, done] = [...arguments];
let state = seed;
const random = (n) => {
  state = (state * 1103515245 + 12345) % 2147483648;
  return Math.floor((state / 2147483648) * n);
};
const at = (canvas) => {
  const box = canvas.getBoundingClientRect();
  const [x, y] = [box.width, box.height].map((side) => 1 + random(Math.max(side - 2, 1)));
  canvas.dispatchEvent(new MouseEvent("click", { bubbles: true, clientX: box.left + x, clientY: box.top + y }));
};
const quiet = async () => {
  let last;
  do {
    last = settled;
    await last;
    await new Promise((next) => setTimeout(next));
  } while (last !== settled);
};
(async () => {
  const said = [];
  for (let i = 0; i < count; i++) {
    const tabs = document.querySelectorAll("#strip button");
    tabs[1 + random(tabs.length - 1)].click();
    await quiet();
    for (const id of ["channels", "map"]) {
      at(document.getElementById(id));
      await quiet();
    }
    const verdict = document.getElementById("verdict");
    const layer = document.querySelector("[aria-selected=true]").title;
    const value = document.getElementById("value").textContent;
    said.push([layer, value, verdict.dataset.same || verdict.textContent]);
  }
  done(said);
})().catch((error) => done(String(error.stack)));
"""


def click(browser: Any, address: str, count: int = CLICKS) -> list[list[str]]:
    """Random clicks; what was shown. There must be no word on the console."""
    browser.get("about:blank")  # else another #dialect alone loads nothing anew
    browser.get(address)
    said = browser.execute_async_script(CLICK, 7, count)
    assert isinstance(said, list), said
    assert browser.get_log("browser") == []
    return said


def check(said: list[list[str]]) -> None:
    wrong = [line for line in said if line[2] != "true"]
    assert not wrong, wrong[:5]
    assert len({line[0] for line in said}) > 10
    assert len({line[1] for line in said}) > len(said) / 2


def test_the_flowers_page_in_a_browser(browser: Any, tmp_path: Path) -> None:
    """The page alone, in float: at most 6 MB, all clicked values recomputed to the bit."""
    target = tmp_path / "page.html"
    assert run(["explore", "-o", str(target)]) == 0
    assert target.stat().st_size <= SIX_MB
    check(click(browser, target.as_uri()))
    assert "sunflowers 0.8866" in browser.find_element("id", "best").text


def test_int8_in_a_browser_under_every_dialect(browser: Any, tmp_path: Path) -> None:
    """A scale for each channel, sums, products, means and tables of hard-swish."""
    data = tiny("reference").data
    model = Model(quantize(data, calibrate(data, [images(1)]).ranges), "reference")
    x = np.random.default_rng(2).integers(-128, 128, (1, 32, 32, 3)).astype(np.int8)
    target = tmp_path / "page.html"
    target.write_bytes(page(Explorer(model, {model.input.name: x}, "noise"), alone=True).encode())
    for i in range(5):
        check(click(browser, f"{target.as_uri()}#dialect={i}", CLICKS // 5))
        assert browser.execute_script("return chosen.dialect") == i
    names = [o.text for o in browser.find_elements("css selector", "#dialect option")]
    assert names == list(DIALECTS)


def test_other_ops_in_a_browser(browser: Any) -> None:
    """Squeeze-excite, hard-swish, means and products, served layer by layer; hostile names stay text."""
    model = Model(renamed(tiny("reference").data, HOSTILE), "reference")
    with ExploreServer(Explorer(model, {"input": images(1)}, HOSTILE)) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        check(click(browser, server.address))
        assert browser.find_element("id", "title").text == f"{HOSTILE} looks at {HOSTILE}"
        assert browser.title == f"npmobilenet: {HOSTILE}"
        server.shutdown()


def test_keyboard(browser: Any, tmp_path: Path) -> None:
    """Without a mouse: layers by arrow keys, then a channel, then a value."""
    from selenium.webdriver.common.keys import Keys

    target = tmp_path / "page.html"
    target.write_bytes(page(Explorer(tiny("reference"), {"input": images(1)}, "a.png"), alone=True).encode())
    browser.get(target.as_uri())
    browser.execute_async_script("settled.then(arguments[0])")
    browser.find_element("css selector", "[aria-selected=true]").send_keys(Keys.HOME, Keys.ARROW_RIGHT)
    browser.execute_async_script("settled.then(arguments[0])")
    assert browser.execute_script("return chosen.layer") == 1
    browser.find_element("id", "map").send_keys(Keys.ARROW_RIGHT, Keys.ARROW_DOWN, Keys.PAGE_DOWN)
    browser.execute_async_script("settled.then(arguments[0])")
    assert browser.execute_script("return chosen.c") == 1
    assert "the same as the engine" in browser.find_element("id", "verdict").text
    assert browser.get_log("browser") == []


@pytest.mark.parametrize("width", [400, 900, 1600])
def test_nothing_sticks_out(browser: Any, tmp_path: Path, width: int) -> None:
    """At three widths no part of the page is wider than the window, in either theme."""
    target = tmp_path / "page.html"
    target.write_bytes(page(Explorer(tiny("reference"), {"input": images(1)}, "a" * 200), alone=True).encode())
    browser.set_window_size(width, 900)
    browser.get(target.as_uri())
    browser.execute_async_script("settled.then(arguments[0])")
    for theme in ("light", "dark"):
        browser.execute_script(f"document.documentElement.dataset.theme = '{theme}'")
        assert browser.execute_script("return document.documentElement.scrollWidth <= innerWidth")


GAPS = """
const [layer, channel] = ["layer", "channel"].map((id) => document.getElementById(id).parentElement);
const title = document.getElementById("title").getBoundingClientRect();
return [channel.getBoundingClientRect().top - layer.getBoundingClientRect().bottom, title.width / innerWidth];
"""


def test_parts_stand_close(browser: Any, tmp_path: Path) -> None:
    """In two columns a long right one doesn't tear the left one's parts apart, nor selectors crowd the title."""
    data = tiny("reference").data
    model = Model(quantize(data, calibrate(data, [images(1)]).ranges), "reference")
    x = np.zeros((1, 32, 32, 3), np.int8)
    target = tmp_path / "page.html"
    target.write_bytes(page(Explorer(model, {model.input.name: x}, "noise"), alone=True).encode())
    PICTURES["shoot"](browser, target, (900, "light"), tmp_path / "shot.png")
    gap, share = browser.execute_script(GAPS)
    browser.execute_cdp_cmd("Emulation.clearDeviceMetricsOverride", {})
    assert 0 < gap < 30
    assert share > 0.4


def test_screenshots(browser: Any, tmp_path: Path) -> None:
    """As many pixels as asked for, in the theme, with a value that was computed again."""
    from PIL import Image

    page_file, target = tmp_path / "page.html", tmp_path / "shot.png"
    page_file.write_bytes(page(Explorer(tiny("reference"), {"input": images(1)}, "a.png"), alone=True).encode())
    for look in ((400, "dark"), (1600, "light")):
        PICTURES["shoot"](browser, page_file, look, target)
        with Image.open(target) as picture:
            assert picture.size == (look[0], PICTURES["HEIGHT"])
            assert (sum(picture.convert("RGB").getpixel((2, 2))) < 200) == (look[1] == "dark")
        assert browser.execute_script("return [chosen.layer, chosen.y, chosen.c]") == [2, 4, 4]
    browser.execute_cdp_cmd("Emulation.clearDeviceMetricsOverride", {})

"""`pull` against a real server that misbehaves in every way, killed at any moment, twice at once."""

from __future__ import annotations

import contextlib
import email.utils
import functools
import hashlib
import http.server
import io
import os
import signal
import subprocess
import sys
import tarfile
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from models import random_weights
from tflite_export import to_tflite

import npmobilenet as nm
from npmobilenet.cli import main
from npmobilenet.errors import ConversionError, DownloadError, MissingExtra, ModelNotFound
from npmobilenet.formats.download import pull
from npmobilenet.modeldata import ModelData, ModelInfo
from npmobilenet.zoo import SPECS
from npmobilenet.zoo.build import build
from npmobilenet.zoo.checkpoints import resolve
from npmobilenet.zoo.local import data_home

pytest.importorskip("httpx", reason="httpx is not installed (extra [pull])")

NAME = "mobilenet_v1_0.25_128"
PATH = "/storage.googleapis.com/download.tensorflow.org/models/mobilenet_v1_2018_08_02/mobilenet_v1_0.25_128.tgz"


@pytest.fixture(scope="module")
def archive() -> bytes:
    """The archive of a model of the right size with random weights."""
    graph = build(SPECS["v1"], depth_multiplier=0.25, resolution=128, num_classes=1001)
    content, _ = to_tflite(ModelData(graph, random_weights(graph), ModelInfo(NAME)))
    packed = io.BytesIO()
    with tarfile.open(fileobj=packed, mode="w:gz", compresslevel=1) as file:
        info = tarfile.TarInfo("./mobilenet_v1_0.25_128.tflite")
        info.size = len(content)
        file.addfile(info, io.BytesIO(content))
    return packed.getvalue()


class Server(http.server.ThreadingHTTPServer):
    """Answers each request by the next of `script`, and as a good server when that is empty."""

    daemon_threads = True

    def __init__(self, content: bytes) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.content, self.tag = content, '"one"'
        self.script: list[Callable[[Handler], None]] = []
        self.seen: list[str | None] = []  # the Range of each request
        self.pace = 0.0  # seconds between pieces

    @property
    def address(self) -> str:
        return f"http://127.0.0.1:{self.server_address[1]}"


class Handler(http.server.BaseHTTPRequestHandler):
    server: Server
    protocol_version = "HTTP/1.1"

    def log_message(self, *_: object) -> None:
        pass

    def do_GET(self) -> None:
        self.server.seen.append(self.headers["Range"])
        self.close_connection = True
        with contextlib.suppress(BrokenPipeError, ConnectionResetError):
            (self.server.script.pop(0) if self.server.script else good)(self)

    def answer(self, status: int, body: bytes, length: int | None = None, **headers: str) -> None:
        self.send_response(status)
        for name, value in {"Content-Length": str(len(body) if length is None else length), **headers}.items():
            self.send_header(name.replace("_", "-"), value)
        self.end_headers()
        for start in range(0, len(body), 50_000):
            self.wfile.write(body[start : start + 50_000])
            self.wfile.flush()
            time.sleep(self.server.pace)


def good(h: Handler) -> None:
    content, wanted = h.server.content, h.headers["Range"]
    if wanted is None or h.headers["If-Range"] != h.server.tag:
        h.answer(200, content, ETag=h.server.tag)
        return
    start = int(wanted.removeprefix("bytes=").removesuffix("-"))
    if start >= len(content):
        h.answer(416, b"", Content_Range=f"bytes */{len(content)}")
    else:
        place = f"bytes {start}-{len(content) - 1}/{len(content)}"
        h.answer(206, content[start:], ETag=h.server.tag, Content_Range=place)


def half(h: Handler) -> None:
    """Announces all, sends a half, and hangs up."""
    h.answer(200, h.server.content[: len(h.server.content) // 2], len(h.server.content), ETag=h.server.tag)


def silent(h: Handler) -> None:
    time.sleep(1.5)


def stalled(h: Handler) -> None:
    half(h)
    time.sleep(1.5)


def status(code: int, **headers: str) -> Callable[[Handler], None]:
    return lambda h: h.answer(code, b"<html>no</html>", **headers)


def page(h: Handler) -> None:
    h.answer(200, b"<!doctype html><title>Please log in</title>" + bytes(300))


def redirect(to: str) -> Callable[[Handler], None]:
    """Hangs up a while after, as servers do: who asks again on the same connection gets no answer."""

    def answer(h: Handler) -> None:
        h.answer(302, b"", Location=to)
        time.sleep(0.02)

    return answer


def ranges_ignored(h: Handler) -> None:
    h.answer(200, h.server.content, ETag=h.server.tag)


def wrong_range(h: Handler) -> None:
    h.answer(206, h.server.content[5:], Content_Range=f"bytes 5-{len(h.server.content) - 1}/{len(h.server.content)}")


def gone(h: Handler) -> None:
    h.answer(416, b"")


def hung_up(h: Handler) -> None:
    h.connection.close()


def nonsense(h: Handler) -> None:
    h.wfile.write(b"\0\1\2\3 this is no HTTP\r\n\r\n")


def too_much(h: Handler) -> None:
    """Sends more than it announces."""
    h.answer(200, h.server.content + bytes(5000), len(h.server.content), ETag=h.server.tag)


def unannounced(h: Handler) -> None:
    """No length at all: the end of the connection is the end of the file."""
    h.send_response(200)
    h.send_header("Connection", "close")
    h.end_headers()
    h.wfile.write(h.server.content)


@pytest.fixture
def server(archive: bytes, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Server]:
    """A server that the registry's addresses lead to, an empty home, and little patience."""
    from npmobilenet.formats.download import web

    quick = {"silence": 10.0, "connect": 10.0, "first_wait": 0.01, "longest_wait": 0.3, "attempts": 4}
    monkeypatch.setattr(web, "Limits", functools.partial(web.Limits, **quick))
    running = Server(archive)
    threading.Thread(target=running.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True).start()
    for name, value in environment(running, tmp_path).items():
        monkeypatch.setenv(name, value)
    monkeypatch.delenv("NPMOBILENET_OFFLINE", raising=False)
    monkeypatch.delenv("NPMOBILENET_WEIGHTS", raising=False)
    yield running
    running.shutdown()
    running.server_close()


def environment(server: Server, tmp_path: Path) -> dict[str, str]:
    home = str(tmp_path / "home")
    return {"NPMOBILENET_HOME": home, "NPMOBILENET_MIRROR": server.address, "NO_PROXY": "127.0.0.1"}


def left(home: Path) -> list[str]:
    """What lies in the home, but for the lock and the sum."""
    return sorted(p.name for p in home.rglob("*") if p.is_file() and p.suffix not in (".lock", ".sha256"))


def test_pull(server: Server, archive: bytes, tmp_path: Path) -> None:
    """By any spelling; found and marked by its name; fetched once."""
    seen: list[int] = []
    done = pull("MobileNet-V1-0.25-128", on_progress=lambda have, total: seen.append(have))
    assert (done.name, done.fetched, seen[-1]) == (NAME, True, len(archive))
    assert done.sha256 == hashlib.sha256(archive).hexdigest()
    assert left(tmp_path / "home") == [f"{NAME}.h5"]
    model = nm.load(NAME, kernels="reference")
    assert (model.name, model.info.labels, model.info.label_offset) == (NAME, "imagenet", 1)
    assert model.info.assumed == ()
    assert model.info.provenance["archive sha256"] == done.sha256
    assert model.info.provenance["archive"] == resolve(NAME).url
    assert NAME in nm.list_models(present=True)
    assert not pull(NAME).fetched
    assert server.seen == [None]
    assert pull(NAME, force=True).fetched
    assert len(server.seen) == 2


PASSING: dict[str, list[Callable[[Handler], None]]] = {
    "half": [half],
    "silent": [silent], "stalled": [stalled], "hung up": [hung_up], "nonsense": [nonsense],
    "busy": [status(429, Retry_After="0"), status(503), status(500)],
    "busy until a date": [status(503, Retry_After=email.utils.formatdate(time.time() + 1, usegmt=True))],
    "redirect": [redirect("/elsewhere"), redirect("/again")],
    "ranges ignored": [half, ranges_ignored], "wrong range": [half, wrong_range], "range gone": [half, gone],
    "more than announced": [too_much], "unannounced": [unannounced], "half of nothing": [half, hung_up, hung_up, half],
}  # fmt: skip


@pytest.mark.parametrize("case", PASSING)
def test_what_passes(
    case: str, server: Server, archive: bytes, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The archive comes whole in the end, and nothing else is left."""
    from npmobilenet.formats.download import web

    if case in ("silent", "stalled"):  # elsewhere a server that is starved for a moment isn't silent
        monkeypatch.setattr(web, "Limits", functools.partial(web.Limits, silence=0.5))
    server.script = list(PASSING[case])
    assert pull(NAME).sha256 == hashlib.sha256(archive).hexdigest()
    assert left(tmp_path / "home") == [f"{NAME}.h5"]
    if case.startswith("half"):
        assert server.seen[1] == f"bytes={len(archive) // 2}-"


LASTING: dict[str, tuple[list[Callable[[Handler], None]], str, int]] = {
    "forbidden": ([status(403)], "403 Forbidden", 1),
    "not found": ([status(404)], "404 Not Found", 1),
    "busy for good": ([status(503)] * 9, "503 Service Unavailable", 4),
    "too many": ([status(429)] * 9, "429 Too Many Requests", 4),
    "dead": ([hung_up] * 9, "can't be fetched", 4),
    "a page": ([page], "is a web page", 1),
    "redirected in a circle": ([redirect(PATH)] * 30, "redirect", 6),
    "short": ([lambda h: h.answer(200, h.server.content[:90_000])], "damaged archive, or one that was cut short", 1),
    "encoded": ([lambda h: h.answer(200, b"x", Content_Encoding="br")], "comes encoded", 1),
    "endless": ([lambda h: h.answer(200, b"x", 1 << 40)], "at most", 1),
}


@pytest.mark.parametrize("case", LASTING)
def test_what_stays(case: str, server: Server, tmp_path: Path) -> None:
    """Told in a line, with what to do; asked no more often than makes sense; no sum is recorded."""
    script, message, asked = LASTING[case]
    server.script = list(script)
    with pytest.raises((DownloadError, ConversionError), match=message) as caught:
        pull(NAME)
    assert "\n" not in str(caught.value)
    assert len(server.seen) == asked
    assert not [name for name in left(tmp_path / "home") if ".part" not in name]
    assert not list((tmp_path / "home" / "sums").iterdir())
    if case != "short":
        assert f"npmobilenet pull {NAME} --archive" in str(caught.value)


def test_slow_servers(server: Server) -> None:
    """A byte now and then is as good as silence."""
    from npmobilenet.formats.download import web

    def drip(h: Handler) -> None:
        h.send_response(200)
        h.send_header("Content-Length", "1000000")
        h.end_headers()
        for _ in range(200):
            h.wfile.write(b"x")
            h.wfile.flush()
            time.sleep(0.02)

    server.script = [drip] * 3
    limits = web.Limits(window=0.1, slowest=1e4, attempts=2)
    data_home().mkdir()
    with pytest.raises(DownloadError, match="bytes a second"):
        web.download(server.address + PATH, data_home() / "x", limits=limits)


def test_sums(server: Server, archive: bytes, tmp_path: Path) -> None:
    """Known ones are compared, others recorded at the first fetch; another one is refused, and nothing changes."""
    before = pull(NAME).path.read_bytes()
    other = io.BytesIO()
    with tarfile.open(fileobj=other, mode="w:gz") as file, tarfile.open(fileobj=io.BytesIO(archive)) as old:
        info = old.getmembers()[0]
        file.addfile(info, old.extractfile(info))
    server.content, server.tag = other.getvalue(), '"two"'
    with pytest.raises(DownloadError, match=r"recorded in .*when it was first fetched"):
        pull(NAME, force=True)
    assert (tmp_path / "home" / "models" / f"{NAME}.h5").read_bytes() == before
    with pytest.raises(DownloadError, match=r"2fadeabb9968ec68.*is known for it: refused"):
        pull("mobilenet_v1_1.0_224")
    assert left(tmp_path / "home") == [f"{NAME}.h5"]


def test_a_changed_file_is_not_stitched(server: Server, archive: bytes) -> None:
    """Resumed after a change, the whole of the new one comes."""
    server.script = [half]

    def change(h: Handler) -> None:
        h.server.tag = '"two"'
        good(h)

    server.script.append(change)
    assert pull(NAME).sha256 == hashlib.sha256(archive).hexdigest()


def test_without_a_network(
    server: Server, archive: bytes, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    """One line says what to do, and doing it works."""
    monkeypatch.setenv("NPMOBILENET_OFFLINE", "1")
    assert main(["pull", NAME]) == 2
    line = capfd.readouterr().err
    assert line.count("\n") == 1
    assert f"Fetch https://storage.googleapis.com/{PATH.partition('.com/')[2]} by other means" in line
    assert f"npmobilenet pull {NAME} --archive mobilenet_v1_0.25_128.tgz" in line
    (tmp_path / "mobilenet_v1_0.25_128.tgz").write_bytes(archive)
    assert main(["pull", NAME, "--archive", str(tmp_path / "mobilenet_v1_0.25_128.tgz"), "--json"]) == 0
    assert nm.load(NAME, kernels="reference").name == NAME
    assert (tmp_path / "mobilenet_v1_0.25_128.tgz").is_file()
    assert not server.seen
    assert main(["pull", NAME, "--archive", str(tmp_path / "none.tgz")]) == 2
    assert main(["pull", "mobilenet_v2_1.0_224", "--archive", str(tmp_path / "mobilenet_v1_0.25_128.tgz")]) == 2
    assert "holds no mobilenet_v2_1.0_224" in capfd.readouterr().err
    assert main(["pull", "mobilenet_v9"]) == 2


def test_load_pulls_only_if_asked(server: Server) -> None:
    with pytest.raises(ModelNotFound, match=f"npmobilenet pull {NAME} fetches them"):
        nm.load(NAME)
    assert not server.seen
    assert nm.load(NAME, kernels="reference", pull=True).name == NAME
    assert nm.load(NAME, kernels="reference", pull=True).name == NAME
    assert len(server.seen) == 1
    assert nm.load("flowers", kernels="reference", pull=True).name == "flowers"


def test_without_the_extra(server: Server, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delitem(sys.modules, "npmobilenet.formats.download.web")
    monkeypatch.delattr("npmobilenet.formats.download.web")
    monkeypatch.setitem(sys.modules, "httpx", None)
    with pytest.raises(MissingExtra, match=r"npmobilenet\[pull\]"):
        pull(NAME)


def test_a_home_that_cannot_be(server: Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "file").write_bytes(b"")
    monkeypatch.setenv("NPMOBILENET_HOME", str(tmp_path / "file" / "home"))
    with pytest.raises(DownloadError, match="NPMOBILENET_HOME names another"):
        pull(NAME)
    monkeypatch.setenv("NPMOBILENET_MIRROR", "file:///etc")
    with pytest.raises(DownloadError, match="expected an address"):
        pull(NAME)


def test_where_the_home_is(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("NPMOBILENET_HOME", "XDG_DATA_HOME"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setattr(sys, "platform", "linux")
    assert data_home() == Path.home() / ".local" / "share" / "npmobilenet"
    monkeypatch.setenv("XDG_DATA_HOME", "relative")
    assert data_home() == Path.home() / ".local" / "share" / "npmobilenet"
    monkeypatch.setattr(sys, "platform", "darwin")
    assert data_home() == Path.home() / "Library" / "Application Support" / "npmobilenet"
    monkeypatch.setattr(sys, "platform", "win32")
    monkeypatch.setenv("LOCALAPPDATA", str(tmp_path))
    assert data_home() == tmp_path / "npmobilenet"
    monkeypatch.setenv("XDG_DATA_HOME", str(tmp_path / "xdg"))
    assert data_home() == tmp_path / "xdg" / "npmobilenet"
    monkeypatch.setenv("NPMOBILENET_HOME", str(tmp_path / "own"))
    assert data_home() == tmp_path / "own"


def started(server: Server, tmp_path: Path) -> subprocess.Popen[bytes]:
    command = [sys.executable, "-m", "npmobilenet", "pull", NAME]
    return subprocess.Popen(command, env={**os.environ, **environment(server, tmp_path)}, stderr=subprocess.PIPE)


def until(condition: Callable[[], object]) -> None:
    end = time.monotonic() + 60
    while not condition():
        assert time.monotonic() < end
        time.sleep(0.005)


@pytest.mark.skipif(not hasattr(signal, "SIGKILL"), reason="this platform has no SIGKILL")
def test_killed(server: Server, archive: bytes, tmp_path: Path) -> None:
    """At several points of the download, and while it converts: no weight file, and the next one goes on."""
    server.pace = 0.1
    parts = tmp_path / "home" / "downloads"
    for share in (0.0, 0.2, 0.5):
        process = started(server, tmp_path)
        wanted = int(share * len(archive))
        until(lambda w=wanted: server.seen and sum(p.stat().st_size for p in parts.glob("*.part")) >= w)
        process.kill()
        process.communicate()
        assert not list((tmp_path / "home" / "models").iterdir())
        server.seen.clear()
    server.pace = 0.0
    process = started(server, tmp_path)
    until(lambda: list(parts.glob("*.unpacked")))
    process.kill()
    process.communicate()
    assert server.seen[0] is not None  # the rest alone
    assert pull(NAME).sha256 in ("", hashlib.sha256(archive).hexdigest())
    assert left(tmp_path / "home") == [f"{NAME}.h5"]
    assert [p.name for p in (tmp_path / "home" / "models").iterdir()] == [f"{NAME}.h5"]


def test_two_at_once(server: Server, tmp_path: Path) -> None:
    """One fetches, the other waits and finds it."""
    server.pace = 0.1
    processes = [started(server, tmp_path) for _ in range(2)]
    for process in processes:
        _, errors = process.communicate()
        assert process.returncode == 0, errors
    assert server.seen == [None]
    assert left(tmp_path / "home") == [f"{NAME}.h5"]


OFFLINE = """
import socket, sys
def refuse(*_, **__):
    raise AssertionError("a socket was opened")
socket.socket.__init__ = refuse
socket.getaddrinfo = refuse
import npmobilenet as nm
from npmobilenet.cli import main
model, folder = sys.argv[1:]
nm.load(model).predict("{}/dark/0.png".format(folder))
assert main(["classify", folder + "/dark/0.png", "--model", model]) == 0
assert main(["evaluate", model, folder]) == 0
assert main(["classify", "x.png", "--model", "mobilenet_v1_0.25_128"]) == 2
assert "httpx" not in sys.modules and "npmobilenet.formats.download" not in sys.modules
print("closed")
"""


def test_nothing_else_opens_a_socket(tmp_path: Path) -> None:
    """Not import, load, classify, evaluate: a socket that is asked for ends this process."""
    from PIL import Image

    from npmobilenet.formats import weightfile

    for i, name in enumerate(("bright", "dark")):
        (tmp_path / "data" / name).mkdir(parents=True)
        Image.new("RGB", (9, 9), (200 * (1 - i),) * 3).save(tmp_path / "data" / name / "0.png")
    graph = build(SPECS["v3_small"], depth_multiplier=0.35, resolution=32, num_classes=2)
    weightfile.write(tmp_path / "m.h5", ModelData(graph, random_weights(graph), ModelInfo("m", ("bright", "dark"))))
    command = [sys.executable, "-c", OFFLINE, str(tmp_path / "m.h5"), str(tmp_path / "data")]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.stdout.endswith("closed\n"), done.stderr

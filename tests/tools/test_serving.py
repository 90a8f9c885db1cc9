"""examples/serve.py, asked by real clients: answers, limits, batches, a stop; tools/serve_load.py has the long load."""

from __future__ import annotations

import io
import json
import sys
import threading
import time
from collections.abc import Iterator
from http.client import HTTPConnection
from pathlib import Path

import numpy as np
import pytest
from models import tiny
from PIL import Image

from npmobilenet.formats import weightfile
from npmobilenet.model import load

pytest.importorskip("fastapi", reason="FastAPI is not installed (extra [serve])")
pytest.importorskip("uvicorn", reason="uvicorn is not installed (extra [serve])")
TOOL = Path(__file__).parents[2] / "tools" / "serve_load.py"
if sys.platform != "linux":
    pytest.skip("this platform has no /proc", allow_module_level=True)
if not TOOL.is_file():
    pytest.skip("not a checkout: tools/ is not installed", allow_module_level=True)
sys.path.insert(0, str(TOOL.parent))

import serve_load  # noqa: E402


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> str:
    path = tmp_path_factory.mktemp("model") / "tiny.h5"
    weightfile.write(path, tiny().data)
    return str(path)


@pytest.fixture(scope="module")
def server(model: str) -> Iterator[serve_load.Server]:
    served = serve_load.Server(model)
    yield served
    assert served.stop() == 0


def picture(seed: int = 0, side: int = 24) -> bytes:
    file = io.BytesIO()
    Image.fromarray(np.random.default_rng(seed).integers(0, 256, (side, side, 3), np.uint8)).save(file, "PNG")
    return file.getvalue()


def test_answers_are_the_models(server: serve_load.Server, model: str) -> None:
    expected = load(model).predict(picture())[0]
    status, body = server.ask("POST", "/classify", picture())
    got = [(c["class_id"], c["label"], c["score"]) for c in json.loads(body)["classes"]]
    assert (status, got) == (200, expected)
    assert server.ask("GET", "/healthz") == (200, b"ok")


def test_what_is_refused(server: serve_load.Server) -> None:
    """Each with its status and a sentence, and the server goes on."""
    wide = io.BytesIO()
    Image.new("1", (60000, 1000)).save(wide, "PNG")

    def endless() -> Iterator[bytes]:
        for _ in range(300):
            yield b"x" * 2**16

    for body, headers, status, said in (
        (b"no picture", {}, 422, "not an image"),
        (b"", {}, 422, "empty"),
        (picture()[:-200], {}, 422, ""),
        (wide.getvalue(), {}, 413, "pixels, this one 60000 x 1000"),
        (b"x", {"Content-Length": str(2**40)}, 413, "make the picture smaller"),
        (endless(), {"Transfer-Encoding": "chunked"}, 413, "make the picture smaller"),
    ):
        try:
            got, answer = server.ask("POST", "/classify", body, headers)
        except (BrokenPipeError, ConnectionResetError):  # answered and closed while the rest was being sent
            assert status == 413
            continue
        assert (got, said in json.loads(answer)["error"]) == (status, True), answer
    assert server.ask("GET", "/classify")[0] == 405
    assert server.ask("POST", "/classify", picture())[0] == 200
    metrics = server.ask("GET", "/metrics")[1].decode()
    assert 'classify_answers_total{status="422"} 3' in metrics
    assert 'classify_seconds_bucket{le="+Inf"}' in metrics


def test_a_flood_is_answered_in_batches_or_sent_away(server: serve_load.Server) -> None:
    """200 clients at once: each has an answer, 200 or 503 with the time to come again, and runs are shared."""
    statuses: list[int] = []

    def ask(i: int) -> None:
        connection = HTTPConnection("127.0.0.1", server.port, timeout=60)
        connection.request("POST", "/classify", picture(i, 200))
        answer = connection.getresponse()
        answer.read()
        statuses.append(answer.status)
        assert answer.status == 200 or answer.headers["Retry-After"] == "1"
        connection.close()

    threads = [threading.Thread(target=ask, args=(i,)) for i in range(200)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(statuses) == 200
    assert set(statuses) <= {200, 503}
    assert statuses.count(200) >= 60
    end = time.monotonic() + 10
    while server.ask("GET", "/readyz")[0] != 200 and time.monotonic() < end:
        time.sleep(0.05)
    assert server.ask("POST", "/classify", picture())[0] == 200


def test_load_and_stop(model: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Every answer right, none lost, memory flat; what is under way at the stop is answered, and the exit code is 0."""
    for i in range(5):
        (tmp_path / f"{i}.png").write_bytes(picture(i, 64))
    photos = [str(tmp_path / f"{i}.png") for i in range(5)]
    assert serve_load.main([model, *photos, "--requests", "1500", "--clients", "6"]) == 0
    facts = json.loads(capsys.readouterr().out)
    assert (facts["answers"], facts["under_way_at_the_stop"], facts["exit_code"]) == ({"right": 1500}, {"right": 6}, 0)
    assert any(int(images) > 1 for images in facts["runs_by_images"])

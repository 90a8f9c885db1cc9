"""A model behind HTTP, with FastAPI and uvicorn: concurrent requests share runs, and nothing is without a limit.

Usage: python examples/serve.py MODEL [--host 127.0.0.1] [--port 8000] [--top 5]
       curl --data-binary @photo.jpg http://127.0.0.1:8000/classify

POST /classify, the bytes of an image file; GET /healthz, /readyz, /metrics (Prometheus). docs/serving.md says how it is
meant and what was measured. pip install 'npmobilenet[cli,serve]'.
"""

import argparse
import asyncio
import resource
import signal
import sys
import time
from collections import Counter, deque
from collections.abc import AsyncIterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import uvicorn
from fastapi import FastAPI, Request
from fastapi.responses import JSONResponse, PlainTextResponse

import npmobilenet as nm
from npmobilenet.errors import NpMobilenetError

BATCHES = (8, 4, 2, 1)  # images in a run; a model keeps the plans of four sizes, so these and no others
WAITING = 64  # images that may wait for a run; more are told to come again
READERS = 2  # threads that decode and resize; their pictures are what takes memory
MAX_BYTES = 10 * 2**20  # of an upload
MAX_PIXELS = 50_000_000  # of a picture, as its file declares it
UPLOAD_SECONDS = 10.0
STOP_SECONDS = 20  # for the requests that are under way when the server is told to stop
BUCKETS = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0)  # seconds, of the histogram of latencies


class Refused(Exception):
    """An answer other than 200: its status and what it says."""

    def __init__(self, status: int, said: str) -> None:
        super().__init__(said)
        self.status = status


@dataclass
class Metrics:
    """What /metrics tells."""

    answers: Counter[int] = field(default_factory=Counter)  # by status
    runs: Counter[int] = field(default_factory=Counter)  # by images in the run
    latencies: list[int] = field(default_factory=lambda: [0] * (len(BUCKETS) + 1))
    seconds: float = 0.0

    def answered(self, status: int, seconds: float) -> None:
        """Count an answer of /classify."""
        self.answers[status] += 1
        if status == 200:
            self.latencies[sum(seconds > bound for bound in BUCKETS)] += 1
            self.seconds += seconds

    def text(self, waiting: int) -> str:
        """In Prometheus' format, version 0.0.4."""
        lines = ["# TYPE classify_answers_total counter"]
        lines += [f'classify_answers_total{{status="{k}"}} {v}' for k, v in sorted(self.answers.items())]
        lines += ["# TYPE classify_runs_total counter"]
        lines += [f'classify_runs_total{{images="{k}"}} {v}' for k, v in sorted(self.runs.items())]
        lines += ["# TYPE classify_waiting gauge", f"classify_waiting {waiting}"]
        lines += ["# TYPE classify_seconds histogram"]
        for i, bound in enumerate((*BUCKETS, "+Inf"), 1):
            lines.append(f'classify_seconds_bucket{{le="{bound}"}} {sum(self.latencies[:i])}')
        lines += [f"classify_seconds_sum {self.seconds:.6f}", f"classify_seconds_count {sum(self.latencies)}"]
        peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * (1 if sys.platform == "darwin" else 1024)
        lines += ["# TYPE process_peak_memory_bytes gauge", f"process_peak_memory_bytes {peak}"]
        return "\n".join(lines) + "\n"


class Batcher:
    """Input tensors of many requests, run together: what has come while the last run was on makes the next one.

    Nobody waits for a batch to fill up: an idle server runs a single image at once. A result doesn't depend on what was
    run beside it, to the bit.
    """

    def __init__(self, model: nm.Model, top: int, metrics: Metrics) -> None:
        self.model, self.top, self.metrics = model, top, metrics
        self.waiting: deque[tuple[np.ndarray, asyncio.Future[Any]]] = deque()
        self.there = asyncio.Event()
        self.runner = ThreadPoolExecutor(1, "run")
        self.task = asyncio.create_task(self._serve())

    async def classes(self, x: np.ndarray) -> Any:
        """The best classes of one image. Raises `Refused` (503) if too many are waiting."""
        if len(self.waiting) >= WAITING:
            raise Refused(503, f"{WAITING} images are waiting; come again in a second")
        future = asyncio.get_running_loop().create_future()
        self.waiting.append((x, future))
        self.there.set()
        return await future

    async def _serve(self) -> None:
        while True:
            await self.there.wait()
            while self.waiting and self.waiting[0][1].cancelled():  # its client went away
                self.waiting.popleft()
            if not self.waiting:
                self.there.clear()
                continue
            size = next(size for size in BATCHES if size <= len(self.waiting))
            taken = [self.waiting.popleft() for _ in range(size)]
            x = np.concatenate([x for x, _ in taken])
            try:
                done = await asyncio.get_running_loop().run_in_executor(self.runner, self._run, x)
                self.metrics.runs[size] += 1
            except Exception as error:
                done = [error] * size
            for (_, future), result in zip(taken, done, strict=True):
                if not future.done():
                    (future.set_exception if isinstance(result, Exception) else future.set_result)(result)

    def _run(self, x: np.ndarray) -> list[Any]:
        return list(self.model.best_classes(x, self.top))

    async def close(self) -> None:
        """Run what is waiting, then end."""
        while self.waiting:
            await asyncio.sleep(0.01)
        self.task.cancel()
        await asyncio.get_running_loop().run_in_executor(None, self.runner.shutdown)


async def upload(request: Request) -> bytes:
    """The body, of at most MAX_BYTES, come within UPLOAD_SECONDS. Raises `Refused`."""
    too_large = Refused(413, f"an upload has at most {MAX_BYTES:,} bytes: make the picture smaller")
    declared = request.headers.get("content-length", "0")
    if not declared.isdecimal() or int(declared) > MAX_BYTES:
        raise too_large
    content = bytearray()
    try:
        async with asyncio.timeout(UPLOAD_SECONDS):
            async for piece in request.stream():
                content += piece
                if len(content) > MAX_BYTES:
                    raise too_large
    except TimeoutError:
        raise Refused(408, f"the upload took more than {UPLOAD_SECONDS:g} seconds") from None
    return bytes(content)


def prepared(model: nm.Model, content: bytes) -> np.ndarray:
    """The input tensor of an image file. Raises `InputError`, or `Refused` for a picture of too many pixels."""
    import io

    from PIL import Image, UnidentifiedImageError

    try:
        width, height = Image.open(io.BytesIO(content)).size  # reads the head only
    except (UnidentifiedImageError, OSError, ValueError, SyntaxError, Image.DecompressionBombError):
        width = height = 0  # npmobilenet says what is wrong with it
    if width * height > MAX_PIXELS:
        raise Refused(413, f"a picture has at most {MAX_PIXELS:,} pixels, this one {width} x {height}")
    return model.preprocess(content)


def application(model: nm.Model, top: int = 5) -> FastAPI:
    """The application, which warms the model up before it takes requests."""
    model.check_classifier()
    metrics = Metrics()

    @asynccontextmanager
    async def lifespan(app: FastAPI) -> AsyncIterator[None]:
        black = model.preprocess(np.zeros((8, 8, 3), np.uint8))
        for size in BATCHES:  # compiles what the disk doesn't have, and makes the plans
            model.run(np.repeat(black, size, 0))
        app.state.batcher = Batcher(model, top, metrics)
        app.state.readers = ThreadPoolExecutor(READERS, "read")
        app.state.ready = True
        yield
        app.state.ready = False
        await app.state.batcher.close()
        app.state.readers.shutdown()

    app = FastAPI(title=model.name, lifespan=lifespan, docs_url=None, redoc_url=None)
    app.state.reading = 0

    @app.post("/classify")
    async def classify(request: Request) -> JSONResponse:
        start = time.perf_counter()
        try:
            if app.state.reading + len(app.state.batcher.waiting) >= WAITING:  # before the upload is read
                raise Refused(503, f"{WAITING} images are waiting; come again in a second")
            app.state.reading += 1
            try:
                content = await upload(request)
                loop = asyncio.get_running_loop()
                x = await loop.run_in_executor(app.state.readers, prepared, model, content)
            finally:
                app.state.reading -= 1
            best = await app.state.batcher.classes(x)
            status, answer = 200, {"classes": [{"class_id": i, "label": name, "score": s} for i, name, s in best]}
        except Refused as error:
            status, answer = error.status, {"error": str(error)}
        except NpMobilenetError as error:
            status, answer = 422, {"error": str(error)}
        metrics.answered(status, time.perf_counter() - start)
        return JSONResponse(answer, status, {"Retry-After": "1"} if status == 503 else None)

    @app.get("/healthz")
    async def healthz() -> PlainTextResponse:
        """Whether the process is alive, for who would start it again."""
        dead = app.state.batcher.task.done()
        return PlainTextResponse("dead" if dead else "ok", 500 if dead else 200)

    @app.get("/readyz")
    async def readyz() -> PlainTextResponse:
        """Whether more requests are welcome, for who spreads them."""
        busy = len(app.state.batcher.waiting) >= WAITING // 2
        return PlainTextResponse("busy" if busy else "ok", 503 if busy else 200)

    @app.get("/metrics")
    async def show() -> PlainTextResponse:
        return PlainTextResponse(metrics.text(len(app.state.batcher.waiting)), media_type="text/plain; version=0.0.4")

    return app


def main() -> None:
    """Serve until SIGTERM or Ctrl-C, then answer what is under way, and end."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("model")
    parser.add_argument("--host", default="127.0.0.1")
    parser.add_argument("--port", type=int, default=8000)
    parser.add_argument("--top", type=int, default=5)
    parser.add_argument("--threads", type=int, default=1, help="of the model; the others read pictures")
    given = parser.parse_args()
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(0))  # uvicorn's handler gives the signal on once all is answered
    app = application(nm.load(given.model, threads=given.threads), given.top)
    uvicorn.run(
        app, host=given.host, port=given.port, log_level="warning", access_log=False, limit_concurrency=4 * WAITING,
        timeout_keep_alive=30, timeout_graceful_shutdown=STOP_SECONDS,
    )  # fmt: skip


if __name__ == "__main__":
    main()

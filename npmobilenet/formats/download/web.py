"""The one module that opens the network: an address to a file, resumed, retried, bounded. Needs the extra [pull]."""

from __future__ import annotations

import email.utils
import json
import os
import ssl
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any
from urllib.parse import urlsplit

from npmobilenet.errors import DownloadError, MissingExtra

try:
    import httpx
    import tenacity
except ImportError as missing:
    raise MissingExtra(missing.name or "httpx", "pull", "Downloading") from None

Listener = Callable[[int, int | None], None]  # bytes there are, bytes in all if the server says so
AGAIN = {408, 425, 429, 500, 502, 503, 504}  # statuses that may pass (RFC 9110, RFC 6585, RFC 8470)


@dataclass(frozen=True)
class Limits:
    """How long to wait for a server, how often to try, how much to take. Seconds and bytes."""

    connect: float = 15.0
    silence: float = 30.0  # without a byte
    window: float = 60.0  # in which at least `slowest` bytes a second must come
    slowest: float = 1024.0
    attempts: int = 6  # in a row that bring less than that
    first_wait: float = 1.0
    longest_wait: float = 60.0
    most_bytes: int = 1 << 30


class _PassingError(Exception):
    """What may be different next time; `wait` is how long the server asks to wait."""

    def __init__(self, text: str, wait: float | None = None) -> None:
        super().__init__(text)
        self.wait = wait


class _Part:
    """What there is of a file, and beside it what the server called the version that it is of."""

    def __init__(self, target: Path, url: str) -> None:
        self.path, self.about = target.with_name(target.name + ".part"), target.with_name(target.name + ".part.json")
        self.url = url

    def start(self) -> tuple[int, str]:
        """Bytes that can be gone on from, and their version; (0, "") where there is nothing to trust."""
        try:
            facts = json.loads(self.about.read_text(encoding="utf-8"))
            size = self.path.stat().st_size
        except (OSError, ValueError, RecursionError):
            return 0, ""
        if not isinstance(facts, dict) or facts.get("url") != self.url or not isinstance(facts.get("version"), str):
            return 0, ""
        return (size, facts["version"]) if facts["version"] else (0, "")

    def begin(self, version: str) -> None:
        """Forget what there is; what comes is of this version."""
        self.discard()
        self.about.write_bytes(json.dumps({"url": self.url, "version": version}).encode())  # half of it counts as none

    def discard(self) -> None:
        """Remove both."""
        self.path.unlink(missing_ok=True)
        self.about.unlink(missing_ok=True)


def download(url: str, target: Path, on_progress: Listener | None = None, limits: Limits | None = None) -> None:
    """Fetch `url` into `target`, which appears when it is whole; `target.part` keeps what came, to go on from.

    A server that is silent, slow, busy or cuts off is asked again, after ever longer waits or the time it asks for,
    and only for what is missing if it can say that the file is still the same. Proxies are those of the environment,
    certificates those of the platform (OpenSSL's folder, SSL_CERT_FILE). Redirects are followed, but not to plain http.

    Raises `DownloadError`.
    """
    limits = limits or Limits()
    part = _Part(target, url)
    timeout = httpx.Timeout(limits.silence, connect=limits.connect)
    headers = {"Accept-Encoding": "identity", "User-Agent": "npmobilenet"}
    seen = [part.start()[0], 0]  # bytes after the last attempt, attempts that brought little

    def enough(state: tenacity.RetryCallState) -> bool:
        size = part.path.stat().st_size if part.path.exists() else 0
        seen[1] = 0 if size - seen[0] >= limits.slowest * limits.window else seen[1] + 1
        seen[0] = size
        return seen[1] >= limits.attempts

    def pause(state: tenacity.RetryCallState) -> float:
        error = state.outcome.exception() if state.outcome else None
        asked = error.wait if isinstance(error, _PassingError) else None
        usual = tenacity.wait_random_exponential(multiplier=limits.first_wait, max=limits.longest_wait)
        return min(asked, limits.longest_wait) if asked is not None else float(usual(state))

    again = tenacity.retry_if_exception_type((_PassingError, httpx.TransportError))
    try:
        verify = ssl.create_default_context()
        fresh = httpx.Limits(max_keepalive_connections=0)  # a kept connection may end just as it is asked again
        with httpx.Client(
            timeout=timeout, headers=headers, verify=verify, limits=fresh, follow_redirects=True
        ) as client:
            client.max_redirects = 5
            for attempt in tenacity.Retrying(retry=again, stop=enough, wait=pause, reraise=True):
                with attempt:
                    _attempt(client, url, part, on_progress, limits)
    except (_PassingError, httpx.HTTPError, httpx.InvalidURL, ssl.SSLError) as error:
        why = str(error).rstrip(".") or type(error).__name__
        raise DownloadError(f"{url} can't be fetched: {why}") from error
    os.replace(part.path, target)
    part.discard()


def _attempt(client: Any, url: str, part: _Part, on_progress: Listener | None, limits: Limits) -> None:
    """One request, its bytes added to the part. Raises `_PassingError`, httpx's errors, `DownloadError`."""
    have, version = part.start()
    headers = {"Range": f"bytes={have}-", "If-Range": version} if have else {}
    with client.stream("GET", url, headers=headers) as response:
        _check_scheme(url, str(response.url))
        if response.status_code == 416:  # more is there than the file has, or all of it
            if have and response.headers.get("content-range") == f"bytes */{have}":
                return
            part.discard()
            raise _PassingError("the server has no such part of it")
        _check_status(response, url)
        if response.headers.get("content-encoding", "identity") != "identity":
            raise DownloadError(f"{url} comes encoded ({response.headers['content-encoding'][:40]}), unasked")
        total = _length(response.headers.get("content-length"))
        if response.status_code == 206:
            place = f"bytes {have}-"
            if not have or not response.headers.get("content-range", "").startswith(place):
                part.discard()
                raise _PassingError("the server sent another part than the one asked for")
            total = None if total is None else have + total
        else:
            have = 0
            part.begin(_version(response.headers))
        if total is not None and total > limits.most_bytes:
            raise DownloadError(f"{url} has {total:,} bytes, at most {limits.most_bytes:,} are fetched")
        with open(part.path, "ab" if have else "wb") as file:
            _copy(response, file, have, total, on_progress, limits)


def _copy(
    response: Any, file: IO[bytes], have: int, total: int | None, on_progress: Listener | None, limits: Limits
) -> None:
    began, before = time.monotonic(), have
    try:
        for piece in response.iter_raw():  # as they come
            have += len(piece)
            if have > limits.most_bytes:
                raise DownloadError(f"{response.url} has more than {limits.most_bytes:,} bytes, which aren't fetched")
            file.write(piece)
            if on_progress is not None:
                on_progress(have, total)
            if (passed := time.monotonic() - began) > limits.window:
                if (have - before) / passed < limits.slowest:
                    raise _PassingError(f"{(have - before) / passed:.0f} bytes a second")
                began, before = time.monotonic(), have
    finally:
        file.flush()
        os.fsync(file.fileno())
    if total is not None and have != total:
        raise _PassingError(f"{have:,} bytes came, and {total:,} were announced")


def _check_scheme(asked: str, reached: str) -> None:
    if urlsplit(asked).scheme == "https" and urlsplit(reached).scheme != "https":
        raise DownloadError(f"{asked} leads to {reached}, which isn't encrypted: refused")


def _check_status(response: Any, url: str) -> None:
    status = response.status_code
    if status in (200, 206):
        return
    reason = f"{status} {response.reason_phrase}"[:80]
    if status in AGAIN:
        raise _PassingError(f"the server answers {reason}", _retry_after(response.headers.get("retry-after")))
    raise DownloadError(f"{url} can't be fetched: the server answers {reason}")


def _retry_after(text: str | None) -> float | None:
    """Seconds of a Retry-After header, which has them or a date (RFC 9110, 10.2.3)."""
    if text is None:
        return None
    try:
        return max(float(text), 0.0)
    except ValueError:
        pass
    try:
        return max(email.utils.parsedate_to_datetime(text).timestamp() - time.time(), 0.0)
    except (ValueError, TypeError, OverflowError):
        return None


def _length(text: str | None) -> int | None:
    return int(text) if text is not None and text.isascii() and text.isdigit() and len(text) < 19 else None


def _version(headers: Any) -> str:
    """What If-Range may name (RFC 9110, 13.1.5): a strong ETag, else the time of the last change; "" for neither."""
    tag = str(headers.get("etag", ""))
    return tag if tag.startswith('"') else str(headers.get("last-modified", ""))

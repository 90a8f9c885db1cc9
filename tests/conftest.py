"""Fixtures: where the shared test data lies."""

from __future__ import annotations

import os
from pathlib import Path

import pytest


@pytest.fixture(scope="session")
def data() -> Path:
    """The folder with real weights, goldens and images (NPMOBILENET_DATA); tests that need it skip without it."""
    folder = os.environ.get("NPMOBILENET_DATA")
    if not folder:
        pytest.skip("NPMOBILENET_DATA is not set: point it at the folder with weights/, golden/ and images/")
    path = Path(folder).resolve()
    if not (path / "weights" / "manifest.json").is_file():
        pytest.fail(f"NPMOBILENET_DATA={folder}: no weights/manifest.json in it")
    return path


# Reasons to skip that a machine may have; any other skip fails the run where NPMOBILENET_NO_SKIP is set (CI).
MACHINE_REASONS = ("this CPU", "this platform", "this Pillow")
_skipped: list[str] = []


def pytest_runtest_logreport(report: pytest.TestReport) -> None:
    if report.skipped and isinstance(report.longrepr, tuple):
        reason = report.longrepr[2].removeprefix("Skipped: ")
        if not reason.startswith(MACHINE_REASONS):
            _skipped.append(f"{report.nodeid}: {reason}")


def pytest_sessionfinish(session: pytest.Session) -> None:
    if _skipped and os.environ.get("NPMOBILENET_NO_SKIP"):
        print("\nskipped, which NPMOBILENET_NO_SKIP forbids:", *_skipped, sep="\n  ")
        session.exitstatus = pytest.ExitCode.TESTS_FAILED

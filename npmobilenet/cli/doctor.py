"""`npmobilenet doctor`: what this installation is made of, and what slows it down or is missing."""

from __future__ import annotations

import os
import platform
import stat
from importlib import util
from pathlib import Path
from typing import Any

import click

import npmobilenet
from npmobilenet.cli import BAD_INPUT
from npmobilenet.cli.options import json_option
from npmobilenet.cli.output import compile_notice, mebibytes, print_error, print_facts, print_json
from npmobilenet.errors import NpMobilenetError
from npmobilenet.measure.benchmark.machine import cpu_name

REQUIRED = ("numpy", "numba", "llvmlite", "h5py")
# Extra -> (module, distribution on PyPI)
EXTRAS: dict[str, tuple[tuple[str, str], ...]] = {
    "cli": (("click", "click"), ("rich", "rich"), ("PIL", "pillow")),
    "convert": (("tflite", "tflite"), ("flatbuffers", "flatbuffers")),
    "plot": (("matplotlib", "matplotlib"),),
}
CPU_FEATURES = ("avx2", "fma", "avxvnni", "avx512f", "avx512vl", "avx512vnni")  # LLVM's names
ARM_FEATURES = ("neon", "fp-armv8", "dotprod", "i8mm")
# kernels/fast/gemm_s8.py: KIND
INTEGER_FORMS = {
    "vnni": "vnni (dot products of four bytes in one instruction)",
    "dotprod": "dotprod (Arm's dot products of four bytes in one instruction)",
    "i8mm": "i8mm (Arm's products of two rows by two columns of eight bytes in one instruction)",
    "pairs": "pairs (products of int16, added in pairs)",
    "generic": "generic (plain multiplications and additions)",
}
DIFFERS = 1  # exit code
WORKQUEUE = (
    "slow: 35 to 120 us for every parallel region, 2 with OpenMP or TBB. Install libgomp (apt-get install libgomp1), "
    "or: pip install tbb"
)


@click.command()
@json_option()
def doctor(as_json: bool) -> int:
    """Check this installation.

    Says what npmobilenet runs on: versions, CPU, threads, cache folder, and whether its kernels agree. The exit code is
    1 if the fast kernels don't give the reference kernels' bits on this machine, 2 if they can't be run.
    """
    document: dict[str, Any] = {
        "versions": _versions(),
        "extras": _extras(),
        "cpu": _cpu(),
        "kernels": _kernels(),
        "self_check": _self_check(),
        "threads": _threads(),  # after the self-check: Numba picks its threading layer when it first runs in parallel
        "cache": _cache(),
        "weight_folders": _weight_folders(),
    }
    if as_json:
        print_json(document)
    else:
        print_facts(_lines(document))
    check = document["self_check"]
    if check["error"]:
        print_error(f"the kernels can't be run: {check['error']}")
        return BAD_INPUT
    return 0 if check["equal"] else DIFFERS


# ---------------------------------------------------------------------------------------------------------------------
# What is found


def _version(distribution: str) -> str | None:
    from importlib import metadata

    try:
        return metadata.version(distribution)
    except metadata.PackageNotFoundError:
        return None


def _versions() -> dict[str, str | None]:
    ours = {"npmobilenet": npmobilenet.__version__, "python": platform.python_version()}
    return {**ours, **{name: _version(name) for name in REQUIRED}}


def _extras() -> dict[str, Any]:
    found = {}
    for extra, packages in EXTRAS.items():
        versions = {
            dist: (_version(dist) or "present") if util.find_spec(module) is not None else None
            for module, dist in packages
        }
        missing = [dist for dist, version in versions.items() if version is None]
        remedy = f"pip install 'npmobilenet[{extra}]'" if missing else None
        found[extra] = {"packages": versions, "missing": missing, "install": remedy}
    return found


def _cpu() -> dict[str, Any]:
    from llvmlite import binding

    from npmobilenet.kernels.compiler.cpu import target_features

    features = target_features()  # what kernels may use: less than the host's where Numba is told so
    wanted = ARM_FEATURES if platform.machine().lower() in {"aarch64", "arm64"} else CPU_FEATURES
    return {
        "name": cpu_name(),
        "llvm_name": binding.get_host_cpu_name(),
        "machine": platform.machine(),
        "features": {name: name in features for name in wanted},
    }


def _kernels() -> dict[str, Any]:
    from npmobilenet.kernels import KERNELS, SETS

    found: dict[str, Any] = {
        "sets": list(SETS),
        "count": len(KERNELS),
        "isa": None,
        "integer_form": None,
        "error": None,
    }
    found["forced_isa"] = os.environ.get("NPMOBILENET_ISA") or None
    try:
        from npmobilenet.kernels.compiler.cpu import isa

        found["isa"] = isa()
        from npmobilenet.kernels.fast.gemm_s8 import KIND

        found["integer_form"] = KIND
    except (ValueError, NpMobilenetError) as error:
        found["error"] = str(error)
    return found


def _self_check() -> dict[str, Any]:
    """Fast and reference pointwise convolution on its example, compared by bits. `equal` is None if they can't run."""
    import numpy as np

    from npmobilenet.graph import OPS
    from npmobilenet.runtime.engine import run
    from npmobilenet.runtime.examples import graph_of, random_arrays
    from npmobilenet.runtime.plan import Plan

    graph = graph_of("conv2d", OPS["conv2d"].examples[-1], "float32")
    values = random_arrays(graph, np.random.default_rng(0))
    weights = {name: values[name] for name in graph.constants}
    results = []
    try:
        with compile_notice():
            for name in ("reference", "fast"):
                (out,) = run(Plan(graph, weights, name), *(values[given] for given in graph.inputs))
                results.append(out.view(np.uint32))
    except Exception as error:  # whatever is wrong with this installation is what doctor is to tell
        return {"kernel": "pointwise_conv2d_f32", "equal": None, "error": f"{type(error).__name__}: {error}"}
    return {"kernel": "pointwise_conv2d_f32", "equal": bool((results[0] == results[1]).all()), "error": None}


def _threads() -> dict[str, Any]:
    import numba

    from npmobilenet.images.prefetch import cores

    try:
        numba.get_num_threads()  # starts them; Numba chooses a layer then
        layer: str | None = numba.threading_layer()
    except ValueError:  # there is none that NUMBA_THREADING_LAYER allows
        layer = None
    return {
        "count": numba.config.NUMBA_NUM_THREADS,
        "cores": cores(),
        "layer": layer,
        "note": WORKQUEUE if layer == "workqueue" else "",
    }


def _cache() -> dict[str, Any]:
    from npmobilenet.kernels.compiler import object_code
    from npmobilenet.kernels.compiler.cache import cache_folder, cache_root

    try:
        root: Path | None = cache_root()
    except RuntimeError:
        root = None
    try:
        folder = cache_folder()
        problem = "" if folder is not None else _cache_problem(root)
    except (ValueError, NpMobilenetError) as error:
        folder, problem = None, str(error)
    files = [] if folder is None else [f for f in folder.rglob("*") if f.is_file()]
    return {
        "root": None if root is None else os.fspath(root),
        "folder": None if folder is None else os.fspath(folder),
        "private": folder is not None,
        "entries": sum(f.suffix in (".nbc", object_code.KERNEL) for f in files),
        "bytes": sum(f.stat().st_size for f in files),
        "problem": problem,
    }


def _cache_problem(root: Path | None) -> str:
    """Why there is no cache folder: the rules of kernels/compiler/cache.py, told one by one."""
    remedy = "NPMOBILENET_CACHE can name another folder"
    if root is None:
        return f"there is no home folder; {remedy}"
    try:
        status = root.stat()
    except OSError as error:
        return f"'{root}' can't be made or looked at ({error.strerror or error}); {remedy}"
    if not stat.S_ISDIR(status.st_mode):
        return f"'{root}' is not a folder; {remedy}"
    if hasattr(os, "getuid") and status.st_uid not in (0, os.getuid()):
        return f"'{root}' belongs to another user, who could put code into it; {remedy}"
    if hasattr(os, "getuid") and status.st_mode & (stat.S_IWGRP | stat.S_IWOTH):
        return f"others may write to '{root}', and so put code into it; {remedy}, which only you may write to"
    return f"'{root}' can't be written, or a folder in it is not private; {remedy}"


def _weight_folders() -> list[dict[str, Any]]:
    from npmobilenet.zoo.local import weight_folders

    return [
        {"path": os.fspath(folder), "exists": folder.is_dir(), "files": len(list(folder.glob("*.h5")))}
        for folder in weight_folders()
    ]


# ---------------------------------------------------------------------------------------------------------------------
# As text


def _lines(document: dict[str, Any]) -> list[tuple[str, object]]:
    cpu, kernels, check = document["cpu"], document["kernels"], document["self_check"]
    threads, cache = document["threads"], document["cache"]
    versions = [(name, version or "MISSING") for name, version in document["versions"].items()]
    extras = [(f"extra [{name}]", _extra_text(extra)) for name, extra in document["extras"].items()]
    features = ", ".join(name if on else f"no {name}" for name, on in cpu["features"].items())
    forced = f", forced by NPMOBILENET_ISA={kernels['forced_isa']}" if kernels["forced_isa"] else ""
    layer = threads["layer"] or "none could be started"
    return [
        *versions,
        *extras,
        ("CPU", f"{cpu['name']} ({cpu['llvm_name']}, {cpu['machine']})"),
        ("features", features),
        ("kernels", f"{kernels['count']} in each of the sets {', '.join(kernels['sets'])}"),
        ("instructions", kernels["error"] or f"{kernels['isa']}{forced}"),
        ("integers", INTEGER_FORMS.get(kernels["integer_form"], "unknown")),
        ("self-check", _check_text(check)),
        ("threads", f"{threads['count']} ({threads['cores']} cores for this process)"),
        ("threading layer", f"{layer}{': ' + threads['note'] if threads['note'] else ''}"),
        ("kernel cache", _cache_text(cache)),
        *_folder_lines(document["weight_folders"]),
    ]


def _extra_text(extra: dict[str, Any]) -> str:
    packages = ", ".join(f"{name} {version or 'MISSING'}" for name, version in extra["packages"].items())
    return packages if not extra["missing"] else f"{packages}: {extra['install']}"


def _check_text(check: dict[str, Any]) -> str:
    if check["error"]:
        return f"could not run: {check['error']}"
    if check["equal"]:
        return f"passed: fast and reference {check['kernel']} give equal bits"
    return f"FAILED: fast and reference {check['kernel']} differ; please report this with the output of doctor --json"


def _cache_text(cache: dict[str, Any]) -> str:
    if cache["problem"]:
        return f"none, so kernels are compiled in every run: {cache['problem']}"
    return f"{cache['folder']} (private; {cache['entries']} entries, {mebibytes(cache['bytes'])})"


def _folder_lines(folders: list[dict[str, Any]]) -> list[tuple[str, object]]:
    texts = [f"{f['path']} ({f['files']} .h5 files)" if f["exists"] else f"{f['path']} (absent)" for f in folders]
    return [("weight folders" if i == 0 else "", text) for i, text in enumerate(texts)]

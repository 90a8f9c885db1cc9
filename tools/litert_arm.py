"""LiteRT on an emulated Arm CPU: every tensor of a .tflite file, and whether this engine's dialect gives the same.

    pip install 'npmobilenet[test]'
    python tools/litert_arm.py MODEL.tflite [INPUT] --cpu cortex-a53 --resolver optimized -o OUT.npz
    python tools/litert_arm.py MODEL.tflite --cpu neoverse-n1 --resolver xnnpack --inside --dialect xnnpack-arm64

INPUT is a .npy file or random:SEED (random:0). OUT.npz holds a value for each tensor, by its index in the file. The
default delegate (resolver xnnpack) shows outputs only; --inside runs a copy of the file cut off behind each tensor.
With --dialect, the exit status is 1 where a value differs.

The first run sets up LiteRT's own aarch64 wheel, of the version that is installed here, below QEMU's user mode: some
120 MB from the mirror that this machine's apt is configured with and from its package index. All of it lies in one
folder (--cache); nothing is installed or registered. It needs apt, dpkg and pip, so Debian or one of its kin.
"""

from __future__ import annotations

import argparse
import importlib.metadata
import json
import os
import select
import shutil
import subprocess
import sys
import tarfile
import tempfile
import zipfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import IO, Any

import cut_tflite
import numpy as np

import npmobilenet as nm
from npmobilenet.errors import NpMobilenetError
from npmobilenet.formats.tflite.flatbuffer import parse

Array = np.ndarray[Any, Any]

# Of Debian 12: CPython 3.11 and what LiteRT's and NumPy's libraries load. Of Debian 13: QEMU 10, the first of Debian's
# whose user mode shows programs the emulated CPU's /proc/cpuinfo, from which XNNPACK chooses its kernels.
ROOT_SUITE, QEMU_SUITE, PYTHON = "bookworm", "trixie", "3.11"
PACKAGES = (
    "python3.11-minimal", "libpython3.11-minimal", "libpython3.11-stdlib", "libc6", "libgcc-s1", "libstdc++6",
    "libgomp1", "zlib1g", "libffi8", "libssl3", "libexpat1", "liblzma5", "libbz2-1.0", "libuuid1", "libcrypt1",
)  # fmt: skip
WHEELS = ("ai-edge-litert", "numpy")
PLATFORMS = ("manylinux2014_aarch64", "manylinux_2_27_aarch64", "manylinux_2_28_aarch64")
RESOLVERS = {
    "reference": "BUILTIN_REF", "optimized": "BUILTIN_WITHOUT_DEFAULT_DELEGATES", "xnnpack": "BUILTIN",
}  # fmt: skip
SECONDS = 600  # for one model; the emulated CPU is some 30 times slower


class ArmError(NpMobilenetError):
    """What can't be set up, or didn't run."""


def default_cache() -> Path:
    """The folder in the user's cache folder."""
    base = os.environ.get("XDG_CACHE_HOME", "")
    return (Path(base) if Path(base).is_absolute() else Path.home() / ".cache") / "npmobilenet-litert-arm"


# -- setting up --------------------------------------------------------------------------------------------------------


def set_up(cache: Path | None = None) -> Path:
    """The folder with `qemu-aarch64`, `root` and `root/site`, made if it isn't there. Raises `ArmError`."""
    try:
        wheels = [f"{name}=={importlib.metadata.version(name)}" for name in WHEELS]
    except importlib.metadata.PackageNotFoundError as error:
        raise ArmError(f"{error.name} isn't installed here, so there is no version to take: install it first") from None
    folder = (cache or default_cache()) / "-".join(w.replace("==", "-") for w in wheels)
    if folder.is_dir():
        return folder
    try:
        folder.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(prefix="setup-", dir=folder.parent) as made:
            ready = Path(made) / "ready"
            ready.mkdir()
            _unpack(Path(made), ready, wheels)
            if not folder.is_dir():  # another process may have been faster
                ready.rename(folder)
    except OSError as error:
        raise ArmError(
            f"'{folder}' can't be made: {error.strerror or error}; choose another place (--cache)"
        ) from error
    return folder


def _unpack(made: Path, ready: Path, wheels: Sequence[str]) -> None:
    """Download below `made`, unpack into `ready`."""
    root = ready / "root"
    for package in _debian_packages(made):
        if package.name.startswith("qemu-user"):
            _extract_qemu(package, ready / "qemu-aarch64")
        else:
            _call("dpkg-deb", "--extract", str(package), str(root))
    platforms = [f"--platform={p}" for p in PLATFORMS]
    _call(sys.executable, "-m", "pip", "download", "--quiet", "--no-deps", "--only-binary=:all:",
          f"--python-version={PYTHON}", *platforms, "--dest", str(made / "wheels"), *wheels)  # fmt: skip
    for wheel in sorted((made / "wheels").glob("*.whl")):
        with zipfile.ZipFile(wheel) as archive:
            archive.extractall(root / "site")


def _extract_qemu(package: Path, target: Path) -> None:
    """The one program out of a package of sixty; what lies behind it isn't decompressed."""
    command = ("dpkg-deb", "--fsys-tarfile", str(package))
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL) as stream:
        with tarfile.open(fileobj=stream.stdout, mode="r|") as archive:
            content = next((archive.extractfile(m) for m in archive if m.name.endswith("/bin/qemu-aarch64")), None)
            if content is None:
                raise ArmError(f"{package.name} holds no qemu-aarch64")
            with target.open("wb") as file:
                shutil.copyfileobj(content, file)
        stream.kill()
    target.chmod(0o755)


def _debian_packages(made: Path) -> list[Path]:
    """Download the packages by a configuration of apt that keeps everything below `made`.

    This machine's own settings (a proxy, say) hold, but for its lists, its state and what it runs after an update.
    """
    mirror = _mirror()
    host = _call("dpkg", "--print-architecture").strip()
    for folder in ("state/lists/partial", "cache/archives/partial", "debs"):
        (made / folder).mkdir(parents=True)
    (made / "status").touch()
    key = "signed-by=/usr/share/keyrings/debian-archive-keyring.gpg"
    (made / "sources.list").write_text(
        f"deb [arch=arm64 {key}] {mirror} {ROOT_SUITE} main\ndeb [arch={host} {key}] {mirror} {QEMU_SUITE} main\n",
        encoding="utf-8",
        newline="\n",
    )
    architectures = "".join(f'"{name}"; ' for name in dict.fromkeys(("arm64", host)))
    (made / "apt.conf").write_text(
        "#clear APT::Update;\n#clear DPkg::Post-Invoke;\n#clear APT::Architectures;\n"
        f'Dir::State "{made}/state";\nDir::State::status "{made}/status";\nDir::Cache "{made}/cache";\n'
        f'Dir::Etc::sourcelist "{made}/sources.list";\nDir::Etc::sourceparts "-";\n'
        f'APT::Architectures {{ {architectures}}};\nAPT::Sandbox::User "root";\nAcquire::Languages "none";\n',
        encoding="utf-8",
        newline="\n",
    )
    apt = ("apt-get", "-qq", "-c", str(made / "apt.conf"))
    _call(*apt, "update", "--error-on=any")
    names = [f"qemu-user:{host}/{QEMU_SUITE}", *(f"{name}:arm64/{ROOT_SUITE}" for name in PACKAGES)]
    _call(*apt, "download", *names, folder=made / "debs")
    return sorted((made / "debs").glob("*.deb"))


def _mirror() -> str:
    """The address of Debian's archive in this machine's apt."""
    form = "--format=$(REPO_URI) $(RELEASE) $(COMPONENT)"
    for line in _call("apt-get", "indextargets", form, "Created-By: Packages").splitlines():
        address, release, component = [*line.split(), "", "", ""][:3]
        if component == "main" and "-" not in release and address.rstrip("/").endswith("/debian"):
            return address
    raise ArmError("apt's sources on this machine name no Debian archive; run this on Debian, or in its container")


def _call(*command: str, folder: Path | None = None) -> str:
    """Run a program; its output. Raises `ArmError` with the last that it says."""
    try:
        done = subprocess.run(
            command, cwd=folder, capture_output=True, encoding="utf-8", errors="replace", timeout=SECONDS, check=False
        )
    except FileNotFoundError:
        raise ArmError(f"this machine has no '{command[0]}'; run this on Debian, or in its container") from None
    except subprocess.TimeoutExpired:
        raise ArmError(f"'{command[0]}' took more than {SECONDS} s; is there a network?") from None
    if done.returncode:
        said = " ".join(done.stderr.split())[-300:]
        raise ArmError(f"'{' '.join(command[:3])} ...' failed ({done.returncode}): {said or 'it says nothing'}")
    return done.stdout


# -- running -----------------------------------------------------------------------------------------------------------


class ArmLiteRT:
    """LiteRT on a CPU that QEMU emulates (`qemu-aarch64 -cpu help` lists them), for any number of runs; a context."""

    def __init__(self, cpu: str, cache: Path | None = None) -> None:
        folder = set_up(cache)
        root = folder / "root"
        libraries = ":".join(str(root / part / "aarch64-linux-gnu") for part in ("usr/lib", "lib"))
        variables = {"PYTHONHOME": root / "usr", "PYTHONPATH": root / "site", "LD_LIBRARY_PATH": libraries}
        self.cpu, self.ops = cpu, list[str]()
        self._scratch = tempfile.TemporaryDirectory(prefix="litert-arm-")
        self._said: IO[str] = (Path(self._scratch.name) / "stderr").open(
            "w+", encoding="utf-8", errors="replace", newline="\n"
        )
        self._process = subprocess.Popen(
            [
                str(folder / "qemu-aarch64"), "-L", str(root), "-cpu", cpu,
                *(part for name, value in variables.items() for part in ("-E", f"{name}={value}")),
                str(root / "usr" / "bin" / f"python{PYTHON}"), str(Path(__file__).with_name("litert_arm_guest.py")),
            ],
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=self._said, encoding="utf-8",
        )  # fmt: skip

    def __enter__(self) -> ArmLiteRT:
        return self

    def __exit__(self, *_: object) -> None:
        self._process.kill()
        self._process.communicate()
        self._said.close()
        self._scratch.cleanup()

    def run(self, model: Path | bytes, inputs: Mapping[int, Array], resolver: str) -> dict[int, Array]:
        """Tensor index -> value: of all that an operator computes, or of outputs alone under "xnnpack".

        inputs: tensor index -> array. Sets `ops`, the names of what ran ("DELEGATE" for what the delegate took).
        Raises `ArmError` with LiteRT's words where it refuses the model, or if nothing comes within ten minutes.
        """
        scratch = Path(self._scratch.name)
        path = scratch / "model.tflite" if isinstance(model, bytes) else model
        if isinstance(model, bytes):
            path.write_bytes(model)
        values: dict[str, Any] = {str(i): a for i, a in inputs.items()}
        np.savez(scratch / "inputs.npz", **values)
        job = {"model": str(path), "inputs": str(scratch / "inputs.npz"), "resolver": RESOLVERS[resolver],
               "out": str(scratch / "out.npz")}  # fmt: skip
        answer = self._ask(json.dumps(job))
        if "error" in answer:
            raise ArmError(f"LiteRT on {self.cpu}: {answer['error']}")
        self.ops = answer["ops"]
        with np.load(scratch / "out.npz", allow_pickle=False) as found:
            return {int(name): found[name] for name in found.files}

    def _ask(self, line: str) -> dict[str, Any]:
        into, out = self._process.stdin, self._process.stdout
        assert into is not None
        assert out is not None
        try:
            into.write(line + "\n")
            into.flush()
            answer = out.readline() if select.select([out], [], [], SECONDS)[0] else ""
        except BrokenPipeError:
            answer = ""
        if not answer:
            self._said.seek(0)
            said = " ".join(self._said.read().split())[-300:]
            raise ArmError(f"LiteRT on {self.cpu} ended, or gave nothing for {SECONDS} s: {said or 'it says nothing'}")
        found: dict[str, Any] = json.loads(answer)
        return found


def inside(arm: ArmLiteRT, content: bytes, inputs: Mapping[int, Array]) -> dict[int, Array]:
    """Every tensor under the default delegate: each from a copy of the file that ends there."""
    file = parse(content)
    found = {}
    for index in cut_tflite.computed_by(file):
        found.update(arm.run(cut_tflite.cut(content, index), inputs, "xnnpack"))
    return found


def compare(model: nm.Model, x: Array, theirs: Mapping[int, Array]) -> list[tuple[str, str, int, int]]:
    """(tensor, its op, differing values, all values), in graph order, of each tensor that both computed."""
    _, ours = model.run(x, taps="*", check_range=False)
    rows = []
    for node in model.graph.nodes:
        source = model.graph.tensors[node.output].source.removeprefix("#")
        if source.isdecimal() and int(source) in theirs and node.output in ours:
            expected = theirs[int(source)]
            wrong = ours[node.output].reshape(expected.shape) != expected
            rows.append((node.output, node.op, int(wrong.sum()), wrong.size))
    return rows


# -- the command -------------------------------------------------------------------------------------------------------


def _input(text: str, shape: tuple[int, ...], dtype: str) -> Array:
    """The input tensor: from a file, or random over its range."""
    if not text.startswith("random:"):
        x: Array = np.load(text, allow_pickle=False)
        return x
    rng = np.random.default_rng(int(text.removeprefix("random:")))
    if dtype == "float32":
        return rng.uniform(-1, 1, shape).astype(np.float32)
    return rng.integers(np.iinfo(dtype).min, np.iinfo(dtype).max, shape, dtype, endpoint=True)


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one file; returns the exit status."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model", type=Path, help="a .tflite file with one input")
    parser.add_argument("input", nargs="?", default="random:0", help="a .npy file of the input tensor, or random:SEED")
    parser.add_argument(
        "--cpu", default="neoverse-n1", help="cortex-a53, cortex-a72, cortex-a76, neoverse-n1, max, ..."
    )
    parser.add_argument("--resolver", choices=RESOLVERS, default="optimized")
    parser.add_argument("--inside", action="store_true", help="with xnnpack: every tensor, each from a copy cut there")
    parser.add_argument("--dialect", help="compare with this engine under a dialect")
    parser.add_argument("--cache", type=Path, help=f"where LiteRT and QEMU are kept, instead of {default_cache()}")
    parser.add_argument("-o", dest="out", type=Path, help="the .npz to write")
    options = parser.parse_args(arguments)
    try:
        content = cut_tflite.read(options.model)
        source = parse(content)
        given = source.tensors[source.inputs[0]]
        x = _input(options.input, (1, *given.shape[1:]), given.type.lower())
        with ArmLiteRT(options.cpu, options.cache) as arm:
            inputs = {given.index: x}
            found = inside(arm, content, inputs) if options.inside else arm.run(content, inputs, options.resolver)
        if options.out:
            values: dict[str, Any] = {str(i): a for i, a in found.items()}
            np.savez(options.out, **values)
        print(f"{options.model}: {len(found)} tensors computed on {options.cpu}")
        rows = compare(nm.load(options.model, dialect=options.dialect), x, found) if options.dialect else []
    except (NpMobilenetError, OSError, ValueError) as error:
        print(f"litert_arm: {error}", file=sys.stderr)
        return 2
    for name, op, wrong, size in rows:
        if wrong:
            print(f"{name} ({op}): {wrong} of {size} values differ")
    if options.dialect:
        print(f"{options.dialect}: {sum(bool(r[2]) for r in rows)} of {len(rows)} tensors differ")
    return int(any(row[2] for row in rows))


if __name__ == "__main__":
    sys.exit(main())

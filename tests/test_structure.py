"""Rules about the code itself: import direction, lightness, no reordering arithmetic, mirrored kernels, sizes."""

from __future__ import annotations

import ast
import collections
import functools
import re
import subprocess
import sys
from pathlib import Path

import npmobilenet
from npmobilenet.kernels import KERNELS, module_of

PACKAGE = Path(npmobilenet.__file__).parent

# Data flows from left to right; a room imports from itself and from what stands before it.
ROOMS = (
    "errors", "ops", "graph", "modeldata", "zoo", "arithmetic", "formats", "images", "kernels", "runtime", "model",
    "measure", "quantize", "golden", "views", "cli",
)  # fmt: skip


@functools.cache
def parsed(path: Path) -> ast.Module:
    """A file's syntax tree, for all the tests here that ask for it."""
    return ast.parse(path.read_text(encoding="utf-8"))


def room(path: Path) -> str:
    return path.relative_to(PACKAGE).parts[0].removesuffix(".py")


def imports(path: Path) -> set[str]:
    """The rooms of this package that a file imports from, wherever in it."""
    found = set()
    for node in ast.walk(parsed(path)):
        if isinstance(node, ast.ImportFrom) and node.module and node.module.split(".")[0] == "npmobilenet":
            parts = node.module.split(".")
            found.update([parts[1]] if len(parts) > 1 else [alias.name for alias in node.names])
        elif isinstance(node, ast.Import):
            found.update(alias.name.split(".")[1] for alias in node.names if alias.name.startswith("npmobilenet."))
    return found & set(ROOMS)


def sources() -> list[Path]:
    return [p for p in sorted(PACKAGE.rglob("*.py")) if room(p) not in ("__init__", "__main__")]


def test_imports_never_run_backwards() -> None:
    for path in sources():
        assert room(path) in ROOMS, f"{path}: say in ROOMS where it stands"
        later = [r for r in imports(path) if ROOMS.index(r) > ROOMS.index(room(path))]
        assert not later, f"{path.relative_to(PACKAGE)} imports from {later}"


def test_few_rooms_side_by_side() -> None:
    """At most twelve packages and five modules at the top."""
    entries = [p for p in PACKAGE.iterdir() if not p.name.startswith("__")]
    assert len([p for p in entries if p.is_dir() and any(p.glob("*.py"))]) <= 12
    assert len([p for p in entries if p.suffix == ".py"]) <= 5


def test_no_circle_of_modules() -> None:
    """No module is imported, step by step, by what it imports itself at its top."""
    names = {
        ".".join(p.relative_to(PACKAGE.parent).with_suffix("").parts).removesuffix(".__init__"): p for p in sources()
    }
    edges = {}
    for name, path in names.items():
        found = set()
        for node in parsed(path).body:
            if isinstance(node, ast.ImportFrom) and node.module:
                parts = (f"{node.module}.{alias.name}" for alias in node.names)
                found.update(part if part in names else node.module for part in parts)
        edges[name] = (found & set(names)) - {name}
    while free := [name for name, found in edges.items() if not found & set(edges)]:
        for name in free:
            del edges[name]
    assert not edges, f"these import each other: {sorted(edges)}"


def test_nothing_is_there_for_the_tests_alone() -> None:
    """Each name at the top of a module stands somewhere else in the package, or in a tool."""
    places = [*sources(), PACKAGE / "__init__.py", *(Path(__file__).parents[1] / "tools").glob("*.py")]
    texts = {path: path.read_text(encoding="utf-8") for path in places}
    words = collections.Counter(word for text in texts.values() for word in re.findall(r"\w+", text))
    unused = []
    for path in sources():
        lines = texts[path].splitlines()
        for node in parsed(path).body:
            found = [] if getattr(node, "decorator_list", None) else [getattr(node, "name", "")]
            if isinstance(node, ast.Assign):
                found = [target.id for target in node.targets if isinstance(target, ast.Name)]
            own = collections.Counter(re.findall(r"\w+", "\n".join(lines[node.lineno - 1 : node.end_lineno])))
            unused += [f"{path.name}: {name}" for name in found if name and words[name] == own[name]]
    # Packing functions are found by their kernels' names; what is decorated registers itself.
    assert not [name for name in unused if ": pack_" not in name]


# What a stranger looks for, and a line that stands where the file's name led him.
LOOKED_FOR = {
    "golden/diff_verdict.py": "first diverging: ",
    "golden/single_node.py": "def crop(",
    "golden/foreign_dumps.py": "def match_names(",
    "golden/recording.py": "def record(",
    "formats/npy.py": "def read_npy(",
    "arithmetic/pooling.py": "class Pool(",
    "kernels/compiler/numba_private.py": "import",
    "zoo/v3.py": "Spec(",
    "formats/weightfile/limits.py": "def check_declared(",
    "formats/tensorflow/checkpoint.py": "crc32c(data), unmask(entry.crc32c)",
    "kernels/compiler/work_sharing.py": "def _take_part(",
}


def test_files_are_called_what_a_stranger_looks_for() -> None:
    for name, line in LOOKED_FOR.items():
        assert line in (PACKAGE / name).read_text(encoding="utf-8"), name
    assert len(list((PACKAGE / "golden").glob("*.py"))) <= 13


def test_the_reference_is_plain_python() -> None:
    """Reference kernels import NumPy and each other, nothing that compiles."""
    for path in (PACKAGE / "kernels" / "reference").glob("*.py"):
        for node in ast.walk(parsed(path)):
            if isinstance(node, ast.Import):
                assert {alias.name for alias in node.names} <= {"numpy", "math", "struct"}, path.name
            elif isinstance(node, ast.ImportFrom):
                allowed = ("__future__", "npmobilenet.arithmetic.fixedpoint", "npmobilenet.kernels.reference")
                assert str(node.module).startswith(allowed), f"{path.name}: {node.module}"


def test_nothing_reorders_arithmetic() -> None:
    """No fastmath, no BLAS, no NumPy reductions in kernels: each would change bits from machine to machine."""
    banned = {"sum", "dot", "matmul", "einsum", "tensordot", "inner", "vdot", "mean", "exp", "prod", "cumsum", "tanh"}
    for path in (PACKAGE / "kernels").rglob("*.py"):
        for node in ast.walk(parsed(path)):
            assert not (isinstance(node, ast.keyword) and node.arg == "fastmath"), f"{path}: fastmath"
            assert not (isinstance(node, ast.BinOp) and isinstance(node.op, ast.MatMult)), f"{path}: @"
            if isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name) and node.value.id in ("np", "math"):
                assert node.attr not in banned, f"{path}:{node.lineno}: {node.value.id}.{node.attr}"
            # The generators' LLVM operations must not carry fast-math flags either.
            assert not (isinstance(node, ast.keyword) and node.arg == "flags"), f"{path}: LLVM flags"


def test_reference_and_fast_mirror_each_other() -> None:
    for folder in ("reference", "fast"):
        for kernel in KERNELS:
            assert hasattr(module_of(folder, kernel), kernel), (folder, kernel)
    written = {
        node.name
        for path in (PACKAGE / "kernels" / "reference").glob("*.py")
        for node in parsed(path).body
        if isinstance(node, ast.FunctionDef) and node.name.endswith(("_f32", "_q"))
    }
    assert written == set(KERNELS)


def test_import_is_light() -> None:
    heavy = "numba", "h5py", "PIL", "numpy", "tflite", "click", "rich"
    program = f"import npmobilenet, sys; print([m for m in {heavy!r} if m in sys.modules])"
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
    program = "import npmobilenet as nm, sys; nm.load; print([m for m in ('numba', 'h5py', 'PIL') if m in sys.modules])"
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


def test_files_and_kernels_stay_small() -> None:
    for path in sources():
        assert len(path.read_text(encoding="utf-8").splitlines()) <= 350, path
    for path in (PACKAGE / "kernels" / "reference").glob("*.py"):
        for node in parsed(path).body:
            if isinstance(node, ast.FunctionDef):
                assert (node.end_lineno or 0) - node.lineno < 60, f"{path.name}: {node.name}"


MOST_PARAMETERS = 10
# Functions with more, and why. The list only gets shorter.
MORE_PARAMETERS = {
    "cli/evaluate.py: evaluate": 11,  # the command's options, which the parser passes by name
    "cli/golden_diff.py: diff": 12,  # the same
    "cli/quantize.py: quantize": 14,  # the same
    "golden/recording.py: record": 11,  # a public function's keywords
    "model.py: load": 11,  # the same
    "graph.py: node": 11,  # a node's fields, as a file has them
    "zoo/build.py: build": 14,  # a public function's keywords
    "zoo/build.py: conv": 11,  # a convolution's attributes
    "kernels/fast/conv2d_q.py: conv2d_q": 12,  # the reference kernel's ten, and the units that a thread takes
    "kernels/fast/depthwise_conv2d_q.py: depthwise_conv2d_q": 12,  # the same
}


def test_functions_have_few_parameters() -> None:
    """What belongs together travels as one named tuple."""
    found = {}
    for path in sources():
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, (ast.FunctionDef, ast.Lambda)):
                a = node.args
                count = sum(map(len, (a.posonlyargs, a.args, a.kwonlyargs))) + bool(a.vararg) + bool(a.kwarg)
                if count > MOST_PARAMETERS:
                    name = getattr(node, "name", "lambda")
                    found[f"{path.relative_to(PACKAGE).as_posix()}: {name}"] = count
    assert found == MORE_PARAMETERS


def test_no_pickle_and_no_network() -> None:
    """One module alone opens the network, and one package alone imports it, for those who ask."""
    network = {"socket", "http", "requests", "ssl", "ftplib", "httpx", "aiohttp", "urllib3", "pooch", "asyncio"}
    banned = {"pickle", "marshal", "shelve", "urllib", *network}
    allowed = {("formats", "urllib")}  # percent-encoding of names
    server = {("views/explore_server.py", "http")}  # answers browsers on this machine; opens nothing
    web = PACKAGE / "formats" / "download" / "web.py"
    for path in sources():
        if path == web:
            continue
        for node in ast.walk(parsed(path)):
            names = []
            if isinstance(node, ast.Import):
                names = [alias.name.split(".")[0] for alias in node.names]
            elif isinstance(node, ast.ImportFrom) and node.module:
                names = [node.module.split(".")[0]]
                name = f"{node.module}.{node.names[0].name}"
                inside = path.is_relative_to(web.parent)
                assert inside or "formats.download.web" not in name, f"{path}: {name}"
            for name in names:
                here = (path.relative_to(PACKAGE).as_posix(), name)
                assert name not in banned or (room(path), name) in allowed or here in server, f"{path}: {name}"
    assert "import httpx" in web.read_text(encoding="utf-8")


def test_who_computes_a_tensor_is_asked_of_the_graph() -> None:
    """Graph.producers is the one map from tensors to the nodes that compute them."""
    maps = [p for p in sources() if re.search(r"\{(\w+)\.output: \1\b", p.read_text(encoding="utf-8"))]
    assert [p.name for p in maps] == ["graph.py"]


def python_files() -> list[Path]:
    """Of the package, of its tools and of its tests."""
    root = PACKAGE.parent
    return [p for folder in ("npmobilenet", "tools", "tests") for p in sorted((root / folder).rglob("*.py"))]


def test_written_text_is_the_same_on_every_system() -> None:
    """Else lines end with \\r\\n on Windows, in the encoding of the machine: other bytes, other sums, other diffs."""
    for path in python_files():
        if path.is_relative_to(PACKAGE.parent / "tests"):
            continue
        for node in ast.walk(parsed(path)):
            if not isinstance(node, ast.Call):
                continue
            given = {keyword.arg for keyword in node.keywords}
            if isinstance(node.func, ast.Attribute) and node.func.attr == "write_text":
                assert given >= {"encoding", "newline"}, f"{path}:{node.lineno}"
            elif isinstance(node.func, ast.Name) and node.func.id == "open":
                mode = ast.unparse(node.args[1]) if len(node.args) > 1 else "'r'"
                read = "r" in mode or ast.unparse(node.args[0]) == "os.devnull"
                assert "b" in mode or given >= {"encoding", *([] if read else ["newline"])}, f"{path}:{node.lineno}"


def test_what_a_system_may_lack_is_asked_for() -> None:
    """Windows and macOS lack some of `os`: a function that uses one asks for it, or is skipped without it."""
    lacking = {"fork", "getloadavg", "getuid", "mkfifo", "register_at_fork", "sched_getaffinity"}
    for path in python_files():
        tree = parsed(path)
        for node in tree.body:
            used = {
                n.attr
                for n in ast.walk(node)
                if isinstance(n, ast.Attribute) and isinstance(n.value, ast.Name) and n.value.id == "os"
            }
            for name in used & lacking:
                text = ast.unparse(node)
                assert f"hasattr(os, '{name}')" in text or "AttributeError" in text, f"{path}:{node.lineno}: {name}"


def test_paths_are_taken_apart_by_pathlib() -> None:
    """The one separator that `os` names isn't all that there is: Windows has two."""
    name = "os." + "sep"
    assert not [path for path in python_files() if re.search(rf"\b{name}\b", path.read_text(encoding="utf-8"))]

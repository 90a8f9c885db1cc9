"""The private parts of Numba, each by name and with what it is for; only one module touches them."""

from __future__ import annotations

import ast
import importlib
import re
from pathlib import Path
from typing import Any

import llvmlite.binding
import numba
import pytest
from numba.core.caching import CompileResultCacheImpl, IndexDataCacheFile
from numba.core.ccallback import CFunc
from numba.core.registry import cpu_target
from numba.core.runtime import rtsys

import npmobilenet
from npmobilenet.kernels.compiler.numba_private import FunctionFiles
from npmobilenet.kernels.compiler.without_numba import (
    CONFIG,
    OPENMP,
    default_threads,
    extension,
    helpers,
    version_file,
)

PACKAGE = Path(npmobilenet.__file__).parent
HOME = PACKAGE / "kernels" / "compiler" / "numba_private.py"
UNIMPORTED = HOME.with_name("without_numba.py")  # parts that are loaded from their files

# module -> attribute -> what it is for
PARTS = {
    "numba.core.cgutils": {
        "alloca_once": "room on the stack, in a function's first block",
        "alloca_once_value": "the same, with a first value",
        "create_struct_proxy": "the fields of an array",
        "for_range": "a loop in LLVM code",
        "for_range_slice": "the same by steps",
        "get_or_insert_function": "declaring LLVM's intrinsics and the system's functions by name",
    },
    "numba.np.numpy_support": {
        "as_dtype": "Numba's type of a value to NumPy's dtype",
        "from_dtype": "NumPy's dtype to Numba's type",
    },
    "numba.extending": {
        "typeof_impl": "Numba's type of an intrinsic that was put off (public)",
    },
    "numba.core.registry": {
        "cpu_target": "the code generator that compiles tiles, and for which CPU it does",
    },
    "numba.core.runtime": {
        "rtsys.initialize": "the runtime's functions for memory, which loaded code calls",
    },
    "numba.core.bytecode": {
        "FunctionIdentity._unique_ids": "numbers in symbols, which must not meet those of loaded code",
    },
    "numba.core.ccallback": {
        "CFunc": "tasks: kernels with C's calling convention",
        "CFunc.compile": "compiling one",
        "CFunc.address": "its entry point",
        "CFunc.native_name": "the symbol of that in its object file",
    },
    "numba.core.caching": {
        "NullCache": "the base of a cache that Numba calls",
        "FunctionCache": "which function's files, and their key",
        "FunctionCache._impl_class": "what a file holds",
        "FunctionCache._load_overload": "loading without Numba's import of all that it can compile",
        "FunctionCache.save_overload": "keeping code",
        "FunctionCache.cache_path": "where those files are",
        "UserProvidedCacheLocator": "the folder that CACHE_DIR names",
        "UserProvidedCacheLocator.ensure_cache_path": "asking whether it can be written, where reading is enough",
        "UserProvidedCacheLocator.get_cache_path": "a function's folder in it",
        "CompileResultCacheImpl._locator_classes": "that place, and no other",
        "IndexDataCacheFile": "the files of one function",
        "IndexDataCacheFile.load": "what a cache calls to load",
        "IndexDataCacheFile.save": "what a cache calls to save",
        "IndexDataCacheFile._load_data": "reading a file",
        "IndexDataCacheFile._save_data": "writing one",
        "IndexDataCacheFile._data_path": "where one is",
        "IndexDataCacheFile._open_for_write": "the sum at a file's end",
    },
}
# Of objects that Numba makes; the second test asks those.
OF_OBJECTS = {
    "_cache": "the cache of a function compiled by njit",
    "_library": "the code of a CFunc, as an object file",
    "_impl": "what a FunctionCache makes of a file's content",
    "_cache_file": "what a FunctionCache reads and writes its files with",
    "_engine": "of the code generator: where object files are added",
    "_ee": "LLVM's own engine below that, which also knows the addresses of their functions",
    "_getvalue": "an array made of its parts, as LLVM's value",
}
PUBLIC = {"numba", "numba.extending"}


def attribute(module: str, path: str) -> Any:
    found = importlib.import_module(module)
    for name in path.split("."):
        found = getattr(found, name)
    return found


@pytest.mark.parametrize(("module", "path"), [(m, path) for m, paths in PARTS.items() for path in paths])
def test_every_part_is_there(module: str, path: str) -> None:
    """A Numba without it is not supported: change numba_private.py, or the bound in pyproject.toml."""
    assert attribute(module, path) is not None, PARTS[module][path]


def test_objects_have_their_parts(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def nothing() -> None:
        pass

    codegen = cpu_target.target_context.codegen()
    for name in ("add_object_file", "get_function_address"):
        assert callable(getattr(codegen._engine._ee, name))
    triple, cpu, features = codegen.magic_tuple()  # for what CPU Numba compiles
    assert triple
    assert cpu
    assert isinstance(features, str)
    for name in ("make_array", "populate_array", "make_tuple", "get_value_type", "get_data_type", "get_abi_sizeof",
                 "get_dummy_value"):  # fmt: skip
        assert callable(getattr(cpu_target.target_context, name)), "what an intrinsic makes its values with"
    for name in (
        "enable_object_caching",
        "create_ir_module",
        "add_ir_module",
        "finalize",
        "serialize_using_object_code",
    ):
        assert callable(getattr(codegen.create_library("parts"), name)), "tiles are object files of their own"
    assert hasattr(numba.njit(nothing), "_cache")
    function = CFunc(nothing, ((), numba.types.void), {}, {})
    function.compile()
    assert callable(function._library.serialize_using_object_code)
    monkeypatch.setattr(numba.config, "CACHE_LOCATOR_CLASSES", "InTreeCacheLocator", raising=False)
    before = dict(vars(numba.config))
    files = FunctionFiles(nothing, tmp_path)
    assert vars(numba.config) == before
    assert tmp_path in Path(files.cache_path).parents  # the private folder, whatever a user's settings say
    assert isinstance(files._impl, CompileResultCacheImpl)
    assert isinstance(files._cache_file, IndexDataCacheFile)
    assert hasattr(numba.config, "CACHE_DIR")


def touched(path: Path) -> tuple[set[str], set[str]]:
    """The modules of Numba that a file imports, and the private attributes of others than `self` that it names."""
    modules, attributes = set(), set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.ImportFrom) and node.module and node.module.split(".")[0] == "numba":
            modules.add(node.module)
            public = node.module == "numba"
            modules.update(f"numba.{a.name}" for a in node.names if public and a.name in ("core", "np", "misc"))
        elif isinstance(node, ast.Import):
            modules.update(a.name for a in node.names if a.name.split(".")[0] == "numba")
        elif isinstance(node, ast.Attribute):
            attributes.add(node.attr)
        elif isinstance(node, ast.Constant) and re.fullmatch(r"numba(\.\w+)+", str(node.value)):
            modules.add(node.value)
    return modules, attributes


def test_only_one_module_touches_them() -> None:
    private = {path.split(".")[-1] for paths in PARTS.values() for path in paths if "._" in path} | set(OF_OBJECTS)
    private -= {"_impl"}  # an ordinary name
    for path in PACKAGE.rglob("*.py"):
        modules, attributes = touched(path)
        if path not in (HOME, UNIMPORTED):
            assert modules <= PUBLIC, f"{path}: private modules of Numba belong into {HOME.name}"
            assert not attributes & private, f"{path}: private parts of Numba belong into {HOME.name}"


def test_what_that_module_touches_is_named_here() -> None:
    named = {f"{module}.{path}" for module, paths in PARTS.items() for path in paths}
    last = {path.split(".")[-1] for path in named} | set(OF_OBJECTS)
    for node in ast.walk(ast.parse(HOME.read_text(encoding="utf-8"))):
        if isinstance(node, ast.ImportFrom) and str(node.module).startswith("numba."):
            for full in (f"{node.module}.{alias.name}" for alias in node.names):
                # a module, by its parts that are used; or a part itself, or a class of which some are used
                assert full in PARTS or any(name == full or name.startswith(f"{full}.") for name in named), full
        elif isinstance(node, ast.Attribute) and node.attr.startswith("_") and not node.attr.startswith("__"):
            own = isinstance(node.value, ast.Name) and node.value.id == "self"
            assert own or node.attr in last, f"say in PARTS what {node.attr} is for"


# module -> what its file is loaded for, by itself
FILES = {
    "numba._helperlib": "c_helpers: what compiled code calls",
    "numba._dynfunc": "c_helpers: the same",
    "numba.core.runtime._nrt_python": "c_helpers, memsys_use_cpython_allocator: memory for what compiled code asks for",
    "numba.np.ufunc.omppool": "threads, where there is OpenMP: launch_threads, parallel_for, get_ and set_num_threads",
}


def test_files_that_are_loaded_without_numba_are_named_here() -> None:
    modules, _ = touched(UNIMPORTED)
    assert modules == set(FILES)
    for name in modules - {OPENMP}:
        assert extension(name).c_helpers, FILES[name]


def test_numba_gives_the_same_names() -> None:
    """What compiled code gets in a process without Numba is what it gets from Numba."""
    rtsys.initialize(cpu_target.target_context)
    assert helpers()["NRT_Free"]
    for name, address in helpers().items():
        assert llvmlite.binding.address_of_symbol(name) == address, name


def test_numba_says_the_same() -> None:
    assert default_threads() == numba.config.NUMBA_DEFAULT_NUM_THREADS
    assert numba.__version__.encode() in version_file()
    assert numba.core.config._config_fname == CONFIG

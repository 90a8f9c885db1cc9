"""Plant faults into devices, take their dumps, and see whether `golden diff` locates each and names its cause.

    python tools/plant_faults.py [--only TEXT] [--write]
    python tools/plant_faults.py --seed 1 MODEL.tflite [MODEL.tflite ...]

The devices' arithmetic is NumPy of their own (faulty_device.py, faults.py). Models are random ones of the zoo's tables,
quantized, and the flowers model that the package holds; inputs are random. `--write` puts the table of results into
docs/golden.md; tests/golden/test_plant_faults.py runs a few and compares the list with the table. With files, each
fault is planted into a layer of one of them, drawn as form and gaps of its dump are.
"""

from __future__ import annotations

import argparse
import functools
import json
import re
import sys
import tempfile
import time
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from faults import Fault
from more_faults import ALL as FAULTS
from small_ops import small_ops

import npmobilenet as nm
from npmobilenet import golden
from npmobilenet.golden import single_node
from npmobilenet.golden.dump import sanitized
from npmobilenet.golden.inputs import random_input
from npmobilenet.graph import Node
from npmobilenet.measure.benchmark.random_model import random_model
from npmobilenet.modeldata import Array, ModelData
from npmobilenet.quantize import calibrate, quantize

PAGE = Path(__file__).resolve().parent.parent / "docs" / "golden.md"
TABLE = re.compile(r"(?<=<!-- faults -->\n).*?(?=<!-- /faults -->)", re.DOTALL)
DIALECT = "tflite-reference"
SECONDS = 300.0
IMAGES = 2
MOST_CHARACTERS = 150  # of a file's name


def _made(name: str, scheme: str) -> ModelData:
    floats = random_model(name, seed=7)
    tensor = floats.graph.tensors[floats.graph.inputs[0]]
    some = np.random.RandomState(3).uniform(-1, 1, (4, *tensor.shape[1:])).astype(np.float32)
    return quantize(floats, calibrate(floats, [some]).ranges, scheme)


MODELS: Mapping[str, Callable[[], ModelData]] = {
    "V1 int8": lambda: _made("mobilenet_v1_0.25_96", "int8"),
    "V1 uint8": lambda: _made("mobilenet_v1_0.25_96", "uint8"),
    "V2 int8": lambda: _made("mobilenet_v2_0.35_96", "int8"),
    "V3 uint8": lambda: _made("mobilenet_v3_small_0.5_96", "uint8"),
    "small ops int8": lambda: small_ops("int8"),
    "small ops uint8": lambda: small_ops("uint8"),
    "flowers uint8": lambda: nm.load("flowers_uint8").data,
}


@functools.cache
def model(name: str) -> tuple[ModelData, golden.Dump, Path]:
    """A model with its right dump."""
    data = MODELS[name]() if name in MODELS else nm.load(name).data
    folder = Path(tempfile.mkdtemp())
    engine = nm.Model(data)
    return data, golden.record(engine, random_input(engine, 9, batch=IMAGES), folder / "ours", taps=["*"]), folder


class Result(NamedTuple):
    """What came of one fault."""

    fault: Fault
    located: bool
    named: str  # "yes", "no", "wrong"
    text: str
    seconds: float


def nodes_of(data: ModelData, fault: Fault) -> list[Node]:
    """The first, middle or last node of the fault's op, and the next ones: the fault befalls the first it changes."""
    nodes = [n for n in data.graph.nodes if n.op == fault.op]
    if fault.op == "activation":
        nodes = [n for n in nodes if n.attrs["function"] == "hard_swish"]
    place = round(fault.where * (len(nodes) - 1))
    return sorted(nodes, key=lambda n: abs(nodes.index(n) - place))


def device(data: ModelData, right: Mapping[str, Array], fault: Fault) -> tuple[dict[str, Array], Node]:
    """All values of a device with the fault, and the node that has it."""
    for odd in nodes_of(data, fault):
        wrong = fault.plant(data, odd, right, right[odd.output])
        if not np.array_equal(wrong, right[odd.output]):
            break
    else:
        raise RuntimeError(f"'{fault.name}' of {fault.model} changes nothing")
    values = dict(right)
    values[odd.output] = wrong
    for node in data.graph.nodes[data.graph.nodes.index(odd) + 1 :]:
        read = {n: values[n] for n in node.inputs if not data.graph.tensors[n].constant}
        values[node.output] = single_node.run(single_node.isolate(data, node, read), DIALECT)
    return values, odd


def kept(data: ModelData, values: Mapping[str, Array], odd: Node, lacks: str) -> dict[str, Array]:
    """What the dump holds of it."""
    away: Iterable[str] = ()
    if lacks == "before":
        away = [n for n in odd.inputs if n not in data.graph.inputs]
    if lacks == "behind":
        away = [odd.output]
    tensors = data.graph.tensors  # a name that no file can have: its index in the .tflite file
    stems = {n: t.source.removeprefix("#") if len(n) > MOST_CHARACTERS else n for n, t in tensors.items()}
    return {stems[n]: a for n, a in values.items() if n not in away}


def write(values: Mapping[str, Array], folder: Path, form: str) -> Path:
    """The dump in one of its forms."""
    if form == "npz":
        np.savez(folder.with_suffix(".npz"), **{k.replace("/", "_"): v for k, v in values.items()})  # type: ignore[arg-type]
        return folder.with_suffix(".npz")
    if form == "json":
        text = json.dumps({name: array.tolist() for name, array in values.items()})
        folder.with_suffix(".json").write_text(text, encoding="utf-8", newline="\n")
        return folder.with_suffix(".json")
    folder.mkdir()
    shapes = {}
    for name, array in values.items():
        stem = sanitized(name)
        if form == "bin":
            (folder / f"{stem}.bin").write_bytes(array.tobytes())
            shapes[stem] = {"shape": list(array.shape), "dtype": str(array.dtype)}
        elif form == "csv":
            np.savetxt(folder / f"{stem}.csv", array.reshape(-1, array.shape[-1]), "%d", ",")
        else:
            np.save(folder / f"{stem}.npy", array.view(np.uint8) if form == "view" else array)
    if shapes:
        (folder / "shapes.json").write_text(json.dumps(shapes), encoding="utf-8", newline="\n")
    return folder


def plant(fault: Fault, place: int, seconds: float = SECONDS) -> Result:
    """Plant one fault and judge what `golden diff` says of it."""
    data, ours, folder = model(fault.model)
    values, odd = device(data, {e.name: ours[e.name] for e in ours.entries if not e.prefix}, fault)
    theirs = write(kept(data, values, odd, fault.lacks), folder / f"f{place}", fault.form)
    begin = time.monotonic()
    found = golden.diff(ours, theirs, model=data, seconds=seconds)
    took = time.monotonic() - begin
    located = found.first is not None and odd.output in [e.name for e in found.nodes]
    located = located and (bool(fault.lacks) or len(found.nodes) == 1)
    text = "" if found.cause is None else found.cause.text
    proved = found.cause is not None and found.cause.proved
    causes = [] if found.cause is None else [text, *(c.text for c in found.cause.causes)]  # the text shortens many
    right = len(causes) > 1 and any(re.search(fault.says, cause) for cause in causes)
    return Result(fault, located, "yes" if right else "wrong" if proved else "no", text, took)


def table(results: list[Result]) -> str:
    """The page's table and its sums."""
    count = {key: sum(r.named == key for r in results) for key in ("yes", "no", "wrong")}
    lines = [
        f"Of {len(results)} faults {sum(r.located for r in results)} are located; the cause of {count['yes']} is "
        f"rightly named, of {count['no']} not named, of {count['wrong']} wrongly named.\n",
        "| fault | model, node | dump | located | named | the cause as it is said |", "|---|---|---|---|---|---|",
    ]  # fmt: skip
    for r in results:
        where = {0.0: "first", 1.0: "last"}.get(r.fault.where, "middle")
        lacks = {"before": ", without its input", "behind": ", without its output"}.get(r.fault.lacks, "")
        text = re.sub(r"[|`<]", " ", r.text)
        said = text if len(text) <= 160 else text[:157] + "..."
        lines.append(f"| {r.fault.name} | {r.fault.model}, {where} {r.fault.op} | {r.fault.form}{lacks} "
                     f"| {'yes' if r.located else 'no'} | {r.named} | {said} |")  # fmt: skip
    return "\n".join(lines) + "\n"


def elsewhere(files: list[str], seed: int) -> list[Fault]:
    """Every fault once, anywhere in one of the files that has its op; it may befall none of its layers."""
    rng = np.random.default_rng(seed)
    found = []
    for fault in FAULTS:
        fit = [f for f in files if any(n.op == fault.op for n in model(f)[0].graph.nodes)]
        if fit:
            form = str(rng.choice(("npy", "npz", "bin", "csv", "json")))
            lacks = str(rng.choice(("", "", "", "before", "behind")))
            where = float(rng.uniform())
            says = re.sub(
                r" \\\(ky.*?\\\)", "", fault.says
            )  # smaller weights have another one flipped (faults.py: _flip)
            found.append(fault._replace(model=str(rng.choice(fit)), where=where, says=says, form=form, lacks=lacks))
    return found


def main(arguments: Any = None) -> int:
    """Run all, or some."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("files", nargs="*", metavar="MODEL.tflite")
    parser.add_argument("--seed", type=int, default=0, help="for files")
    parser.add_argument("--only", default="")
    parser.add_argument("--write", action="store_true")
    parser.add_argument("--seconds", type=float, default=SECONDS)
    options = parser.parse_args(arguments)
    if options.files and options.write:
        parser.error("the page's table is of the faults as they are listed, not of those in files")
    results = []
    for place, fault in enumerate(elsewhere(options.files, options.seed) if options.files else FAULTS):
        if options.only in f"{fault.name} {fault.model} {fault.op}":
            try:
                result = plant(fault, place, options.seconds)
            except (RuntimeError, StopIteration, IndexError) as error:  # not in a file that has no fitting layer
                if not options.files:
                    raise
                print(f"{place:3d} not planted: {fault.name}, {fault.model}, {fault.op}: {error}", flush=True)
                continue
            results.append(result)
            print(f"{place:3d} {'located' if result.located else 'LOST':8s}{result.named:6s}{result.seconds:6.1f} s  "
                  f"{fault.name}, {fault.model}, {fault.op}: {result.text}", flush=True)  # fmt: skip
    shown = table(results)
    print(shown.splitlines()[0])
    if options.write:
        PAGE.write_text(TABLE.sub(lambda _: shown, PAGE.read_text(encoding="utf-8")), encoding="utf-8", newline="\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())

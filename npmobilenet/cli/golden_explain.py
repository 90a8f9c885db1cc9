"""`npmobilenet golden explain`: one value, taken apart."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import click

from npmobilenet.cli.options import dialect_option, json_option, layout_option, names_option
from npmobilenet.cli.output import Column, compile_notice, print_facts, print_json, print_line, print_table
from npmobilenet.errors import InputError, short_name

if TYPE_CHECKING:
    from npmobilenet.golden import Explanation
    from npmobilenet.golden.derivation import Derivation, TracedCall
    from npmobilenet.graph import Tensor

WRONG = 1
STEPS = 40  # calls of a derivation that are printed without --all
LARGEST = 5  # products


@click.command()
@click.argument("model")
@click.argument("source", metavar="INPUT")
@click.option(
    "--tensor", metavar="NAME", required=True, help="Its name, an endpoint, '#12', or 'acc:' or 'pre:' of these."
)
@click.option("--index", metavar="N,Y,X,C", required=True, help="Which of its elements.")
@click.option("--got", metavar="V", help="The value in question. With a dump as INPUT: the dump's own.")
@dialect_option("Under which the model runs up to there; the value is derived under every one.")
@names_option("For a foreign dump: their names to ours (.json or .csv).")
@layout_option()
@click.option("--all", "everything", is_flag=True, help="Print every product.")
@json_option()
def explain(
    model: str, source: str, tensor: str, index: str, got: str | None, dialect: str, names: str | None, layout: str,
    everything: bool, as_json: bool,
) -> int:  # fmt: skip
    """Derive one value of MODEL, step by step and under every dialect.

    INPUT is what the model is fed (an image, a .npy file, random:SEED), or a dump: then the layer's inputs are taken
    from the dump, and its value is the one in question. Exit 1 if --got is not what the dialect gives.
    """
    from npmobilenet import golden

    with compile_notice():
        found = golden.explain(
            model, source, tensor, _index(index), _value(got), dialect=dialect, names=names, layout=layout
        )
    if as_json:
        print_json(found.to_dict())
    else:
        _print(found, everything)
    return WRONG if found.got is not None and found.got != found.value else 0


def _index(text: str) -> tuple[int, ...]:
    try:
        return tuple(int(part) for part in text.strip("()[] ").split(","))
    except ValueError:
        raise InputError(f"--index {text}: expected whole numbers with commas between them, as 0,3,5,17") from None


def _value(text: str | None) -> int | float | None:
    if text is None:
        return None
    try:
        return int(text)
    except ValueError:
        try:
            return float(text)
        except ValueError:
            raise InputError(f"--got {text}: expected a number") from None


# ---------------------------------------------------------------------------------------------------------------------
# As text


def _print(found: Explanation, everything: bool) -> None:
    index = ",".join(map(str, found.index))
    facts: list[tuple[str, object]] = [
        (
            "value",
            f"{short_name(found.tensor)}[{index}] = {found.value}"
            + (f" under {found.dialect}" if found.is_integer else ""),
        ),
        ("node", f"{short_name(found.node.name)}: {found.node.op}{_attributes(found)}"),
    ]
    facts += [(f"operand {i}", _tensor(t)) for i, t in enumerate(found.operands)]
    facts.append(("result", _tensor(found.result)))
    facts += [("input value", f"{short_name(name)}: {value}") for name, value in found.inputs.items()]
    print_facts(facts)
    if found.products:
        _print_sum(found, everything)
    for part in found.derivations:
        print_line()
        _print_derivation(part, found, everything)
    for name, why in found.refusals.items():
        print_line()
        print_facts([("dialect", name), ("refuses", why)])
    _print_meanings(found)
    print_line()
    verdict: list[tuple[str, object]] = [("verdict", found.verdict)]
    verdict += [("" if i else "needs", s.text) for i, s in enumerate(found.needed)]
    if found.cause is not None:
        verdict.append(("cause", found.cause.text))
    elif found.needed:
        verdict.append(
            ("cause", "one value alone proves none: give the dump as INPUT, and its whole layer is looked at")
        )
    print_facts(verdict)


def _print_meanings(found: Explanation) -> None:
    """What the functions in the steps do, each once, as their docstrings say it."""
    calls = [call for part in found.derivations for call in part.trace.calls]
    meanings = {call.name: call.meaning for call in calls if call.meaning}
    if meanings:
        print_line()
        print_facts([("" if i else "where", f"{name}: {text}") for i, (name, text) in enumerate(meanings.items())])


def _attributes(found: Explanation) -> str:
    shown = [f"{key} {value}" for key, value in found.node.attrs.items() if value not in ("none", (1, 1))]
    return f" ({', '.join(shown)})" if shown else ""


def _tensor(tensor: Tensor) -> str:
    q = tensor.quantization
    if q is None:
        scale = ""
    elif len(q.scale) == 1:
        scale = f", scale {q.scale[0]:.9g}, zero point {q.zero_point[0]}"
    else:
        scale = f", {len(q.scale)} scales along axis {q.axis}, zero point {q.zero_point[0]}"
    kind = "constant " if tensor.constant else ""
    return f"{short_name(tensor.name)}: {kind}{tensor.dtype} {'x'.join(map(str, tensor.shape))}{scale}"


def _print_sum(found: Explanation, everything: bool) -> None:
    """The accumulator: all products, or their sums by filter position."""
    print_line()
    fused = not found.is_integer
    if everything:
        columns = [Column("filter"), Column("input"), Column("x", right=True), Column("weight", right=True),
                   Column("product", right=True)]  # fmt: skip
        print_table(columns, [_term(t.filter_at, t.input_at, t.x, t.weight, t.value) for t in found.products])
    elif not fused:
        print_table(
            [Column("filter position"), Column("terms", right=True), Column("sum", right=True)], _by_position(found)
        )
    total = sum(t.value for t in found.products if t.value is not None)
    lines: list[tuple[str, object]] = []
    if not fused:
        lines.append(("products", f"{len(found.products)}, in all {total}"))
    else:
        lines.append(("terms", f"{len(found.products)}, one fused multiply-add after the other, from the bias on"))
    if found.skipped:
        lines.append(("outside", f"{found.skipped} filter positions lie outside the image and add nothing"))
    lines += [("bias", found.bias), ("accumulator", found.accumulator)]
    print_facts(lines)


def _term(*cells: Any) -> tuple[object, ...]:
    return tuple(",".join(map(str, cell)) if isinstance(cell, tuple) else cell for cell in cells)


def _by_position(found: Explanation) -> list[tuple[object, ...]]:
    """Sums by (ky, kx); where there is one position only, the largest products."""
    sums: dict[tuple[int, ...], list[int]] = {}
    for product in found.products:
        sums.setdefault(product.filter_at[:2] if len(product.filter_at) == 3 else (), []).append(product.value or 0)
    if len(sums) > 1:
        return [(",".join(map(str, at)), len(products), sum(products)) for at, products in sums.items()]
    largest = sorted(found.products, key=lambda t: -abs(t.value or 0))[:LARGEST]
    rows: list[tuple[object, ...]] = [
        (",".join(map(str, t.filter_at)) + f" ({t.x} and {t.weight})", 1, t.value) for t in largest
    ]
    rest = len(found.products) - len(largest)
    others = sum(t.value or 0 for t in found.products) - sum(t.value or 0 for t in largest)
    return [*rows, ("others", rest, others)] if rest else rows


def _print_derivation(part: Derivation, found: Explanation, everything: bool) -> None:
    facts: list[tuple[str, object]] = []
    if found.is_integer:
        facts.append(("dialect", ", ".join(part.dialects)))
    if part.rule:
        facts.append(("rule", f"{part.rule} ({part.source})"))
    if part.note:
        facts.append(("place", part.note))
    facts += [("given", ", ".join(f"{k} {v}" for k, v in part.parameters.items()))] if part.parameters else []
    calls = part.trace.calls if everything else _without_chain(part.trace.calls)
    facts += [("" if i else "steps", _call(call)) for i, call in enumerate(calls[: None if everything else STEPS])]
    hidden = len(part.trace.calls) - len(calls[: None if everything else STEPS]) + part.trace.left_out
    if hidden > 0:
        facts.append(("", f"and {hidden} more calls" + ("" if everything else ", which --all prints")))
    mark = ""
    if found.got is not None and found.is_integer:
        mark = f"   = {found.got}, the value in question" if part.value == found.got else f"   not {found.got}"
    facts.append(("gives", f"{part.value}{mark}"))
    print_facts(facts)


def _without_chain(calls: list[TracedCall]) -> list[TracedCall]:
    """Without the fused multiply-adds of a long sum: the first, and the last two, tell the rest."""
    chain = [call for call in calls if call.name == "fma32" and call.depth == 0]
    hidden = {id(call) for call in chain[1:-2]}
    return [call for call in calls if id(call) not in hidden]


def _call(call: TracedCall) -> str:
    arguments = ", ".join(f"{name}={value}" for name, value in call.arguments.items())
    return f"{'. ' * call.depth}{call.name}({arguments}) = {call.result}"

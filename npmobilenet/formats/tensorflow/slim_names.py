"""TF-slim's variable names: what a checkpoint holds for a network, and which network that is.

Names are `<prefix><scope>/<layer>/<leaf>`: the scope is the architecture's ("MobilenetV2"), the prefix is usually
empty ("tower_0/", "FeatureExtractor/"), the leaf is `weights`, `depthwise_weights`, `biases` or
`BatchNorm/{gamma,beta,moving_mean,moving_variance}`. Beside them lie moving averages
(`<name>/ExponentialMovingAverage`), optimizer slots (`<name>/RMSProp`) and counters, which are not part of the network.

Sources: tf_slim 1.1.0 layers/layers.py (leaves); tensorflow v2.15 python/training/moving_averages.py and the optimizers
beside it (slot names).
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass

from npmobilenet.errors import ConversionError, GraphError
from npmobilenet.formats.misfit import LISTED, Misfit
from npmobilenet.formats.tensorflow.checkpoint import Checkpoint
from npmobilenet.graph import Graph
from npmobilenet.zoo import SPECS
from npmobilenet.zoo.build import build
from npmobilenet.zoo.rows import Conv, ReduceTo1x1, Separable, Spec

Ema = bool | str  # True, False or "auto"
LOGITS = "Logits/Conv2d_1c_1x1"

_SHADOW = "/ExponentialMovingAverage"
_STATISTICS = ("/moving_mean", "/moving_variance")
_BOOKKEEPING = re.compile(
    r".*/(?:RMSProp|RMSPropOptimizer|Momentum|MomentumOptimizer|Adam|AdamOptimizer|AdamWeightDecay|Adagrad|AdagradDA|"
    r"Adadelta|Ftrl|AddSign|PowerSign|LARSOptimizer|LARS|LAMB|biased|local_step)(?:_\d+)?"
    r"|(?:.*/)?(?:global_step|train_step|beta[12]_power|learning_rate|current_learning_rate|save_counter)(?:_\d+)?"
)
_SCOPES = tuple(sorted({spec.scope for spec in SPECS.values() if spec.slim}))
_SCOPED = re.compile(rf"((?:.*?/)?)({'|'.join(map(re.escape, _SCOPES))})/.*", re.DOTALL)
# Multipliers that are tried: the published ones first, then every hundredth.
_PUBLISHED = (1.0, 0.75, 0.5, 0.25, 0.35, 1.4, 1.3, 1.25)
_MULTIPLIERS = (*_PUBLISHED, *(m / 100 for m in range(5, 401) if m / 100 not in _PUBLISHED))


@dataclass(frozen=True)
class SlimVariables:
    """A network's variables. `names` maps `<scope>/...` (without prefix) to the checkpoint's name for the value.

    `unaveraged` are variables (without prefix) that lie beside the moving averages in use and have none themselves;
    `extra` are those that lie outside the network's scope.
    """

    scope: str
    prefix: str
    ema: bool
    names: Mapping[str, str]
    shapes: Mapping[str, tuple[int, ...]]
    unaveraged: tuple[str, ...] = ()
    extra: tuple[str, ...] = ()

    @property
    def num_classes(self) -> int:
        """Outputs of the classifier, 0 without one."""
        for leaf in ("biases", "weights"):
            shape = self.shapes.get(f"{self.scope}/{LOGITS}/{leaf}", ())
            if shape and shape[-1]:
                return shape[-1]
        return 0


def slim_variables(checkpoint: Checkpoint, ema: Ema = "auto") -> SlimVariables:
    """Sort a checkpoint's variables into the network's, moving averages, and the rest, which is left out.

    With moving averages in use (`ema` True, or "auto" where there are some) they stand in for the variables that they
    average; moving statistics, which usually have none, are then taken as they are.

    Raises `ConversionError` where no scope of a known architecture occurs, or several prefixes do, or `ema=True` and
    there are no moving averages.
    """
    if ema not in (True, False, "auto"):
        raise ConversionError(f"ema is {ema!r}, expected True, False or 'auto'")
    shadows = {n.removesuffix(_SHADOW): n for n in checkpoint.variables if n.endswith(_SHADOW)}
    live = {n: n for n in checkpoint.variables if not n.endswith(_SHADOW) and not _BOOKKEEPING.fullmatch(n)}
    prefix, scope = _scope(checkpoint, {**shadows, **live})
    root = f"{prefix}{scope}/"
    averaged = {n: source for n, source in shadows.items() if n.startswith(root)}
    if ema is True and not averaged:
        raise ConversionError(
            f"checkpoint '{checkpoint.prefix}': ema=True, but no variable ends in '{_SHADOW}'; "
            "leave ema at 'auto', or pass a checkpoint that has moving averages"
        )
    use_ema = bool(averaged) and ema is not False
    statistics = {n: s for n, s in live.items() if n.endswith(_STATISTICS)}
    chosen = {**statistics, **averaged} if use_ema else live
    chosen = {n: s for n, s in sorted(chosen.items()) if n.startswith(root)}
    return SlimVariables(
        scope=scope,
        prefix=prefix,
        ema=use_ema,
        names={n.removeprefix(prefix): source for n, source in chosen.items()},
        shapes={n.removeprefix(prefix): checkpoint.variables[source].shape for n, source in chosen.items()},
        unaveraged=tuple(n.removeprefix(prefix) for n in live if n.startswith(root) and n not in chosen),
        extra=tuple(n for n in live if not n.startswith(root)),
    )


def _scope(checkpoint: Checkpoint, names: Mapping[str, str]) -> tuple[str, str]:
    """The one (prefix, scope) under which the network's variables lie."""
    found = sorted({(m[1], m[2]) for m in map(_SCOPED.fullmatch, names) if m})
    if len(found) == 1:
        return found[0]
    where = f"checkpoint '{checkpoint.prefix}'"
    if found:
        listed = ", ".join(f"'{prefix}{scope}'" for prefix, scope in found[:LISTED])
        raise ConversionError(
            f"{where}: it holds {len(found)} networks ({listed}), expected one; save the one you want alone"
        )
    if any("/.ATTRIBUTES/" in name for name in checkpoint.variables):
        raise ConversionError(
            f"{where}: object-based (made by TensorFlow 2 or Keras), expected TF-slim's names; "
            "save the Keras model as .keras, .h5 or .weights.h5 and convert that"
        )
    listed = ", ".join(list(names)[:5]) or "no variables at all"
    raise ConversionError(
        f"{where}: no variable lies under {', '.join(_SCOPES)}, the scopes of TF-slim's MobileNets; "
        f"it holds {listed}{', ...' if len(names) > 5 else ''}"
    )


# ---------------------------------------------------------------------------------------------------------------------
# Does a graph fit?


def needed(graph: Graph) -> dict[str, tuple[int, ...]]:
    """The variables of a zoo graph in TF-slim's names and shapes; batch norm's are not folded yet."""
    shapes: dict[str, tuple[int, ...]] = {}
    for node in graph.nodes:
        if not node.scope:
            continue
        weights = graph.tensors[node.inputs[1]].shape
        if node.op == "depthwise_conv2d":
            shapes[f"{node.scope}/depthwise_weights"] = (*weights, 1)
        else:
            shapes[f"{node.scope}/weights"] = weights
        leaves = [f"BatchNorm/{leaf}" for leaf in ("gamma", "beta", "moving_mean", "moving_variance")]
        for leaf in leaves if node.batch_norm else ["biases"]:
            shapes[f"{node.scope}/{leaf}"] = weights[-1:]
    return shapes


def misfit(graph: Graph, variables: SlimVariables) -> Misfit:
    """Compare names and shapes; what is right gives an empty `Misfit`."""
    result = Misfit(extra=list(variables.extra))
    wanted = needed(graph)
    for name, shape in wanted.items():
        got = variables.shapes.get(name)
        full = variables.prefix + name
        if got is None:
            shadowed = variables.ema and not name.endswith(_STATISTICS)
            result.missing.append(full + _SHADOW if shadowed else full)
        elif got != shape:
            result.misshapen.append(f"{full} {got}, expected {shape}")
    result.extra += [source for name, source in variables.names.items() if name not in wanted]
    result.extra += [variables.prefix + name for name in variables.unaveraged if name not in wanted]
    return result


# ---------------------------------------------------------------------------------------------------------------------
# Which network is it?


@dataclass(frozen=True)
class Candidate:
    """A network that the variables might belong to: the arguments of `build`."""

    spec: Spec
    depth_multiplier: float
    finegrain: bool
    num_classes: int
    final_endpoint: str | None = None

    def graph(self, resolution: int | tuple[int, int] = 224, name: str = "") -> Graph:
        """Build it; a network that ends before its table does has no head."""
        return build(
            self.spec, depth_multiplier=self.depth_multiplier, resolution=resolution, finegrain=self.finegrain,
            num_classes=self.num_classes, final_endpoint=self.final_endpoint,
            base_only=self.final_endpoint is not None, name=name,
        )  # fmt: skip


def candidates(variables: SlimVariables, spec: Spec, multipliers: tuple[float, ...] = _MULTIPLIERS) -> list[Candidate]:
    """Ways to scale `spec` so that its layers get the widths found, best first; the first few if none is perfect.

    Only the widths of the rows' last convolutions are compared here, which is quick; `misfit` decides.
    """
    widths = [variables.shapes.get(f"{variables.scope}/{scope}/weights", (0,))[-1:] for scope in _row_scopes(spec)]
    final = _final_endpoint(variables, spec)
    ways: list[tuple[int, Candidate]] = []
    for multiplier in multipliers:
        for finegrain in (multiplier < 1, multiplier >= 1):  # the usual choice first: sorting is stable
            right = sum(w == (r,) for w, r in zip(widths, _row_widths(spec, multiplier, finegrain), strict=True))
            ways.append((right, Candidate(spec, multiplier, finegrain, variables.num_classes, final)))
    ways.sort(key=lambda way: -way[0])
    return [candidate for right, candidate in ways if right == ways[0][0]][:2]


def infer(variables: SlimVariables) -> tuple[list[Candidate], Misfit]:
    """All networks that the variables fit, one for each architecture; if there is none, the closest and its misfit."""
    fitting: list[Candidate] = []
    closest: tuple[Misfit, Candidate] | None = None
    for spec in SPECS.values():
        if spec.scope != variables.scope:
            continue
        best, candidate = best_of(candidates(variables, spec), variables)
        if not len(best):
            fitting.append(candidate)
        if closest is None or len(best) < len(closest[0]):
            closest = best, candidate
    if closest is None:  # unreachable: the scope was found among those of SPECS
        raise ConversionError(f"no architecture has the variable scope '{variables.scope}'")
    return fitting or [closest[1]], closest[0]


def best_of(ways: list[Candidate], variables: SlimVariables) -> tuple[Misfit, Candidate]:
    """The candidate with the fewest differences, and those."""
    judged = []
    for candidate in ways:
        try:
            judged.append((misfit(candidate.graph(), variables), candidate))
        except GraphError as error:
            raise ConversionError(f"variables under '{variables.scope}': {error}") from error
    return min(judged, key=lambda pair: len(pair[0]))


def _row_scopes(spec: Spec) -> Iterator[str]:
    """For each row with weights, the scope (below the network's) of its last convolution."""
    counts = {"Conv": 0, "expanded_conv": 0}
    for index, row in enumerate(spec.rows):
        if isinstance(row, ReduceTo1x1):
            continue
        if spec.family == "v1":
            yield f"Conv2d_{index}_pointwise" if isinstance(row, Separable) else f"Conv2d_{index}"
            continue
        kind = "Conv" if isinstance(row, Conv) else "expanded_conv"
        number = f"_{counts[kind]}" if counts[kind] else ""
        counts[kind] += 1
        yield f"{kind}{number}" if kind == "Conv" else f"{kind}{number}/project"


def _row_widths(spec: Spec, multiplier: float, finegrain: bool) -> Iterator[int]:
    """For each row with weights, the output channels that `build` gives it."""
    for index, row in enumerate(spec.rows):
        if isinstance(row, ReduceTo1x1):
            continue
        depth: float = row.out
        if finegrain and index == len(spec.rows) - 1:
            if spec.finegrain == "unscaled":
                yield row.out
                continue
            if spec.finegrain == "divide" and multiplier < 1:
                depth = row.out / multiplier
        yield spec.width(depth * multiplier, 8, 8)


def _final_endpoint(variables: SlimVariables, spec: Spec) -> str | None:
    """The last layer of a network that was cut before its end (`final_endpoint`) and so has no classifier either.

    None where it is whole: the last row is there, or a classifier is.
    """
    rows = [(i, row) for i, row in enumerate(spec.rows) if not isinstance(row, ReduceTo1x1)]
    present = [f"{variables.scope}/{scope}/weights" in variables.shapes for scope in _row_scopes(spec)]
    if variables.num_classes or all(present) or True not in present:
        return None
    last = max(i for i, there in enumerate(present) if there)
    if last == len(present) - 1 or not all(present[: last + 1]):
        return None
    index, row = rows[last]
    if spec.family == "v1":
        return f"Conv2d_{index}_pointwise" if isinstance(row, Separable) else f"Conv2d_{index}"
    return f"layer_{index + 1}"

"""The options that several verbs take, each defined once: `@json_option()` above a verb's function."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import click

from npmobilenet.arithmetic.dialects import NAMES

Option = Callable[[Callable[..., Any]], Callable[..., Any]]


def json_option(what: str = "Print JSON.") -> Option:
    """`--json`, as `as_json`."""
    return click.option("--json", "as_json", is_flag=True, help=what)


def threads_option(what: str = "Default: all cores. The result doesn't depend on it.") -> Option:
    """`--threads N`; None where it isn't given."""
    return click.option("--threads", type=click.IntRange(min=1), metavar="N", help=what)


def dialect_option(what: str = "The arithmetic of integer models; no effect on float ones.") -> Option:
    """`--dialect`, one of arithmetic.dialects.NAMES."""
    names = list(NAMES)
    return click.option("--dialect", type=click.Choice(names), default=names[0], show_default=True, help=what)


def kernels_option(what: str = "The fast kernels, or the readable reference kernels: equal bits, slower.") -> Option:
    """`--kernels`, a set of kernels.KERNELS."""
    sets = click.Choice(["fast", "reference"])
    return click.option("--kernels", type=sets, default="fast", show_default=True, help=what)


def until_option() -> Option:
    """`--until NAME`, several."""
    what = "End at this tensor (a name or '#12'): what lies behind isn't read. May be repeated."
    return click.option("--until", metavar="NAME", multiple=True, help=what)


def recipe_option(what: str = "How images are prepared: see 'classify --help'. Default: the model's recipe.") -> Option:
    """`--preprocess RECIPE`, as `recipe`."""
    return click.option("--preprocess", "recipe", metavar="RECIPE", help=what)


def labels_option() -> Option:
    """`--labels FILE`: the path of a label file, or the name of a bundled list."""
    what = "The classes' names: a file of one a line, or JSON; or imagenet. Default: the model's own."
    return click.option("--labels", metavar="FILE", help=what)


def names_option(what: str = "Their names to ours: a .json object or a .csv file of two columns.") -> Option:
    """`--map FILE` of a foreign dump, as `names`."""
    return click.option("--map", "names", metavar="FILE", help=what)


def seconds_option() -> Option:
    """`--seconds` that the search for causes may take."""
    return click.option("--seconds", type=click.FloatRange(min=1), default=60.0, show_default=True,
                        help="How long causes are looked for at most; what wasn't tried then is said.")  # fmt: skip


def layout_option() -> Option:
    """`--layout` of a foreign dump."""
    orders = click.Choice(["auto", "nhwc", "nchw"])
    what = "Of a foreign dump's arrays of rank 4."
    return click.option("--layout", type=orders, default="auto", show_default=True, help=what)

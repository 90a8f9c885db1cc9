"""What a shell's Tab key offers for the parameters of all verbs: model names, recipes and paths.

Click offers verbs, options and choices (the dialects among them) by itself. Nothing here is run but while completing.
"""

from __future__ import annotations

import glob
import os
from collections.abc import Callable, Iterator

import click
from click.shell_completion import CompletionItem

Offer = Callable[[click.Context, str], list[CompletionItem]]


def offer_models(_: click.Context, incomplete: str) -> list[CompletionItem]:
    """Names that begin so, in any spelling of case and dashes, and model files; any path where there are neither."""
    from npmobilenet.formats.model_path import SUFFIXES
    from npmobilenet.zoo.checkpoints import list_models
    from npmobilenet.zoo.names import normalise

    start = normalise(incomplete)
    found = [name for name in list_models() if normalise(name).startswith(start)]
    for path in sorted(glob.glob(f"{glob.escape(incomplete)}*")):
        found += [path] if path.endswith(SUFFIXES) else [os.path.join(path, "")] if os.path.isdir(path) else []
    # Shells take "file" and plain answers together for one or the other, so it is one of them.
    return [CompletionItem(word) for word in found] or offer_paths(_, incomplete)


def offer_recipes(_: click.Context, incomplete: str) -> list[CompletionItem]:
    """The preprocessing recipes that begin so, with what they do."""
    from npmobilenet.images.recipes import recipes

    return [CompletionItem(name, help=text) for name, text in recipes().items() if name.startswith(incomplete)]


def offer_paths(_: click.Context, incomplete: str) -> list[CompletionItem]:
    """Whatever the shell itself offers as paths."""
    return [CompletionItem(incomplete, type="file")]


def offer_nothing(_: click.Context, __: str) -> list[CompletionItem]:
    """Free text."""
    return []


# By a parameter's name, for all verbs.
OFFERS: dict[str, Offer] = {
    **dict.fromkeys(("model", "pattern"), offer_models),
    "recipe": offer_recipes,
    **dict.fromkeys(
        ("images", "src", "dst", "data", "truth", "state", "predictions", "confusion", "output", "source", "dump", "a",
         "b", "names", "report", "labels", "image", "archive", "folder", "out"),
        offer_paths,
    ),
    **dict.fromkeys(
        ("split", "tensor", "index", "got", "taps", "name", "until", "bench", "layer", "scheduler"), offer_nothing
    ),
}  # fmt: skip


def parameters(group: click.Group) -> Iterator[click.Parameter]:
    """Those of all verbs in which a text is typed: no flags, numbers or choices, which Click completes."""
    for verb in group.commands.values():
        if isinstance(verb, click.Group):
            yield from parameters(verb)
            continue
        yield from (p for p in verb.params if isinstance(p.type, click.types.StringParamType))


def complete(group: click.Group) -> None:
    """Let all parameters of the group's verbs offer what their names say."""
    for parameter in parameters(group):
        if parameter.name in OFFERS:
            parameter.shell_complete = OFFERS[parameter.name]  # type: ignore[assignment]

"""`npmobilenet golden`: the group of the tools that verify other implementations' arithmetic."""

from __future__ import annotations

import click

from npmobilenet.cli import BAD_INPUT
from npmobilenet.cli.golden_diff import diff
from npmobilenet.cli.golden_digest import digest
from npmobilenet.cli.golden_explain import explain
from npmobilenet.cli.golden_export import export
from npmobilenet.cli.golden_identify import identify
from npmobilenet.cli.golden_record import record


class _Group(click.Group):
    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        """Without a verb, the help is the error message."""
        if not args and not ctx.resilient_parsing:
            click.echo(ctx.get_help(), err=True)
            ctx.exit(BAD_INPUT)
        return super().parse_args(ctx, args)


_HELP = """Record, compare and explain every value that a model computes.

\b
An NPU's dump differs from TFLite; where, and why?
  npmobilenet golden record model.tflite random:0 -o ours
  npmobilenet golden diff ours theirs --html report.html
  npmobilenet golden explain model.tflite random:0 --tensor '#12' \\
      --index 0,3,5,17 --got -4
  npmobilenet golden identify model.tflite theirs
  npmobilenet golden export model.tflite random:0 --format hex -o vectors
  npmobilenet golden digest model.tflite random:0 > ours.txt

Each of them prints JSON with --json.
"""


@click.group(cls=_Group, help=_HELP)
def golden() -> None:
    """The group."""


for _verb in (record, diff, explain, identify, export, digest):
    golden.add_command(_verb)

"""The group of all verbs, and the one place where errors become a line on standard error and an exit code."""

from __future__ import annotations

import contextlib
import io
import os
import signal
import sys
import threading
from collections.abc import Callable, Iterator, Sequence
from typing import Any, NoReturn

import click

import npmobilenet
from npmobilenet.cli import BAD_INPUT
from npmobilenet.cli.bench import bench
from npmobilenet.cli.classify import classify
from npmobilenet.cli.completion import complete
from npmobilenet.cli.convert import convert
from npmobilenet.cli.doctor import doctor
from npmobilenet.cli.embed import embed
from npmobilenet.cli.evaluate import evaluate
from npmobilenet.cli.explore import explore
from npmobilenet.cli.export import export
from npmobilenet.cli.fit import fit
from npmobilenet.cli.golden import golden
from npmobilenet.cli.info import info
from npmobilenet.cli.models import models
from npmobilenet.cli.output import print_error
from npmobilenet.cli.plot import plot
from npmobilenet.cli.pull import pull
from npmobilenet.cli.quantize import quantize
from npmobilenet.cli.warmup import warmup
from npmobilenet.errors import NpMobilenetError

# As a shell reports a program stopped by SIGINT (2), SIGPIPE (13) and SIGTERM (15); 70 is sysexits.h's EX_SOFTWARE.
INTERRUPTED, READER_GONE, TERMINATED, INTERNAL_ERROR = 128 + 2, 128 + 13, 128 + 15, 70
PROGRAM = "npmobilenet"
COMPLETE = "_NPMOBILENET_COMPLETE"  # by which a shell asks for completion, as Click has it


class _ReaderGoneError(click.ClickException):
    """Standard output was closed. Click has its own answer to that, with an exit code that means something else."""


class _TerminatedError(BaseException):
    """SIGTERM came. Raised, so that half-written files are removed as they are after Ctrl-C."""


@contextlib.contextmanager
def _terminable() -> Iterator[None]:
    """SIGTERM raises while this lasts, where the process can be told what to do with it."""

    def stop(*_: object) -> NoReturn:
        raise _TerminatedError

    if threading.current_thread() is not threading.main_thread():  # which alone may set handlers
        yield
        return
    before = signal.signal(signal.SIGTERM, stop)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)


class _App(click.Group):
    """Click's group, with this program's exit codes and one-line errors."""

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        """Without a verb, the help is the error message."""
        if not args and not ctx.resilient_parsing:
            click.echo(ctx.get_help(), err=True)
            ctx.exit(BAD_INPUT)
        return super().parse_args(ctx, args)

    def invoke(self, ctx: click.Context) -> Any:
        """Run the verb and write out what it printed."""
        try:
            result = super().invoke(ctx)
            sys.stdout.flush()
        except BrokenPipeError as error:
            raise _ReaderGoneError("the reader of the output went away") from error
        return result

    def main(self, args: Sequence[str] | None = None, prog_name: str | None = None, *_: Any, **__: Any) -> NoReturn:
        """Run and leave the process with the exit code, as Click's own `main` does."""
        click_main = super().main
        if asked := os.environ.get(COMPLETE):
            sys.exit(_completed(lambda: click_main(args, PROGRAM), asked))
        sys.exit(_exit_code(lambda: click_main(args, prog_name or PROGRAM, standalone_mode=False)))


_HELP = """MobileNet in NumPy and Numba, with results defined to the bit.

\b
A first run:
  npmobilenet models 'mobilenet_v2*' --urls     what there is, and where
  npmobilenet convert model.tflite model.h5     make it a weight file
  npmobilenet classify photo.jpg --model model.h5

MODEL is a name from the list of models, or a path: .h5, .tflite, a TensorFlow checkpoint, a Keras file.
"""


@click.group(PROGRAM, cls=_App, help=_HELP, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(npmobilenet.__version__, "-V", "--version", message="%(prog)s %(version)s")
def app() -> None:
    """The group of all verbs."""


_VERBS = (
    classify, explore, models, info, pull, convert, export, evaluate, embed, fit, quantize, bench, golden, plot, doctor,
    warmup,
)  # fmt: skip
for _verb in _VERBS:
    app.add_command(_verb)
complete(app)


def run(arguments: Sequence[str] | None = None) -> int:
    """The exit code of one command."""
    try:
        app.main(arguments)
    except SystemExit as exit_:
        return exit_.code if isinstance(exit_.code, int) else 0


def _completed(command: Callable[[], Any], asked: str) -> int:
    """Offer words, or nothing: what else is printed stands in the middle of the line that is being typed."""
    try:
        command()
    except SystemExit as exit_:
        if exit_.code:  # Click's answer to a shell that it doesn't know
            return _failed(f"{COMPLETE}={asked}: expected bash_source, zsh_source or fish_source; see docs/cli.md")
    except (Exception, KeyboardInterrupt, GeneratorExit):
        if os.environ.get("NPMOBILENET_DEBUG"):
            raise
        _discard_output()
    return 0


def _exit_code(command: Callable[[], Any]) -> int:
    """Run `command`; any error of the user's becomes a line on standard error and an exit code."""
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")  # a file name or label may not fit the terminal's encoding
    try:
        with _terminable():
            result = command()
    except _ReaderGoneError:
        _discard_output()
        return READER_GONE
    except click.ClickException as error:
        return _usage_error(error)
    except (click.Abort, KeyboardInterrupt):
        return INTERRUPTED
    except _TerminatedError:
        return TERMINATED
    except NpMobilenetError as error:
        return _failed(str(error))
    except OSError as error:
        where = "" if error.filename is None else f": {error.filename!r}"
        return _failed(f"{error.strerror or error}{where}")
    except MemoryError as error:
        return _failed(f"out of memory: {error}; fewer or smaller images, or a smaller model, need less")
    except Exception as error:
        if os.environ.get("NPMOBILENET_DEBUG"):
            raise
        _failed(
            f"npmobilenet itself failed ({type(error).__name__}: {error}). That is a mistake in it: please report it "
            "with what NPMOBILENET_DEBUG=1 shows"
        )
        return INTERNAL_ERROR
    return result if isinstance(result, int) else 0


def _usage_error(error: click.ClickException) -> int:
    text = error.format_message().rstrip(".")
    context = getattr(error, "ctx", None)
    path = PROGRAM if context is None else context.command_path
    return _failed(f"{text}. See: {path} --help")


def _failed(text: str) -> int:
    print_error(text)
    return BAD_INPUT


def _discard_output() -> None:
    """Let nothing more be written to a closed pipe, not even when the process ends and flushes."""
    try:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    except (OSError, ValueError):
        return

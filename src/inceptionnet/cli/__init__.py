"""The command `inceptionnet`: one file a command, errors in one line, exit code 2 for what cannot be done.

Nothing heavy is imported before a command needs it, so that help comes at once.
"""

from __future__ import annotations

import contextlib
import logging
import os
import re
import sys
from pathlib import Path
from typing import Annotated, Any

import typer
from typer.core import TyperCommand, TyperGroup

import inceptionnet
from inceptionnet.cli.bench import bench
from inceptionnet.cli.check import check
from inceptionnet.cli.compare import compare
from inceptionnet.cli.convert import convert
from inceptionnet.cli.doctor import doctor
from inceptionnet.cli.evaluate import evaluate
from inceptionnet.cli.explain import explain
from inceptionnet.cli.export import export
from inceptionnet.cli.features import features
from inceptionnet.cli.fid import fid
from inceptionnet.cli.models import models
from inceptionnet.cli.predict import predict
from inceptionnet.cli.recipes import recipes
from inceptionnet.cli.report import report
from inceptionnet.cli.serve import serve
from inceptionnet.cli.show import show
from inceptionnet.cli.streams import prepare_streams
from inceptionnet.cli.study import study
from inceptionnet.cli.train import train
from inceptionnet.cli.weights import weights
from inceptionnet.errors import ConfigurationError, DataError, InceptionNetError, Interrupted
from inceptionnet.system.extras import needing_torch
from inceptionnet.system.printing import VISIBLE, say

RENAMED = {"input_size": "size", "edits": "edit", "agreement": "min_agreement"}
"""Parameters in Python that the commands call otherwise."""


class Command(TyperCommand):
    """A command whose help shows no type for flags, which take no value; most need torch, and say so without it."""

    def get_params(self, ctx: Any) -> list[Any]:
        """The parameters, `--help` among them."""
        return [_without_type(parameter) for parameter in super().get_params(ctx)]

    def invoke(self, ctx: Any) -> Any:
        """Run it. Raises: MissingExtraError: it needs torch."""
        with needing_torch(f"inceptionnet {ctx.info_name}"):
            try:
                return super().invoke(ctx)
            except (ConfigurationError, DataError) as error:
                error.args = (self._with_option(str(error.args[0])),)
                raise

    def _with_option(self, message: str) -> str:
        """A message that begins with a parameter's name, as in Python (and not with a file's), with the option's."""
        word = re.match(r"[a-z_]*", message)[0]  # type: ignore[index]  # it matches any text
        name = RENAMED.get(word, word)
        options = [one.opts[0] for one in self.params if one.name == name and one.opts[0].startswith("--")]
        return options[0] + message.removeprefix(word) if options and not Path(word).exists() else message


class Group(TyperGroup):
    """The same for the options of `inceptionnet` itself."""

    def get_params(self, ctx: Any) -> list[Any]:
        """The parameters, `--help` among them."""
        return [_without_type(parameter) for parameter in super().get_params(ctx)]


def _without_type(parameter: Any) -> Any:
    if getattr(parameter, "is_flag", False):
        parameter.metavar = ""
    return parameter


app: typer.Typer = typer.Typer(
    cls=Group,
    help="The whole Inception family of image classifiers: train, evaluate, predict, and look inside.",
    invoke_without_command=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)
for _command in (
    models,
    weights,
    show,
    recipes,
    check,
    train,
    evaluate,
    predict,
    explain,
    features,
    fid,
    report,
    study,
    compare,
    convert,
    export,
    bench,
    serve,
    doctor,
):
    app.command(cls=Command)(_command)


def _version(wanted: bool) -> None:
    if wanted:
        say(f"inceptionnet {inceptionnet.__version__}")
        raise typer.Exit


@app.callback()
def _root(
    context: typer.Context,
    version: Annotated[bool, typer.Option("--version", callback=_version, is_eager=True, help="Print it.")] = False,
) -> None:
    if context.invoked_subcommand is None:
        say(*context.get_help().split("\n"))
        raise typer.Exit
    logging.basicConfig(format="%(message)s", level=logging.INFO, stream=sys.stderr)
    for handler in logging.getLogger().handlers:  # what other libraries log, too
        handler.addFilter(VISIBLE)


def main() -> None:
    """Run the command line; every error that the package raises on purpose is one line on standard error."""
    prepare_streams()
    try:
        code = app(standalone_mode=False)
        sys.stdout.flush()
    except Interrupted as error:
        _fail(str(error), 130)
    except InceptionNetError as error:
        _fail(str(error), 2)
    except typer.TyperException as error:
        context = getattr(error, "ctx", None)
        command = f" {context.info_name}" if context is not None and context.parent is not None else ""
        _fail(f"{error.format_message().replace('Value error, ', '').rstrip('.')}; see inceptionnet{command} --help", 2)
    except BrokenPipeError:
        # Whoever read standard output has gone, as `head` does; nothing is left to be said.
        _end_output()
        sys.exit(1)
    except OSError as error:
        if error.filename is not None:
            raise
        _end_output()
        _fail(f"standard output cannot be written: {error.strerror}; what was printed is incomplete", 1)
    if code == 130:  # what typer makes of Ctrl-C
        _fail("stopped", 130)
    sys.exit(code if isinstance(code, int) else 0)


def _end_output() -> None:
    """Nothing more goes to standard output; else Python would try again at its end, and complain."""
    with contextlib.suppress(OSError, ValueError):
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


def _fail(message: str, code: int) -> None:
    say(f"error: {' '.join(message.split())}", error=True)
    sys.exit(code)

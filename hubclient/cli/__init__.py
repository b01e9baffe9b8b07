"""The command line: a lazy group of commands from the plugin host, and the one place where errors become sentences.

`main` is the entry point. Nothing here imports numpy, rich or an HTTP client; commands import what they need when they run.
"""

from __future__ import annotations

import io
import os
import sys

import click

from hubclient import __version__
from hubclient.cli.options import printable
from hubclient.errors import HubclientError

FAULT = 70
_ENVIRONMENT = 5
_INTERRUPTED = 130


class Commands(click.Group):
    """Commands by name from the plugin host; listing them imports none."""

    def list_commands(self, ctx: click.Context) -> list[str]:  # noqa: ARG002
        """Names of all commands."""
        from hubclient.plugins import get_host

        return list(get_host().command_names())

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:  # noqa: ARG002
        """The command, imported now."""
        from hubclient.plugins import get_host

        command = get_host().command(cmd_name)
        return command if command is None else _taking_offline(command)

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """One line per command, without importing any."""
        from hubclient.plugins import get_host

        host = get_host()
        with formatter.section("Commands"):
            formatter.write_dl([(name, host.command_summary(name)) for name in self.list_commands(ctx)])


def _go_offline(ctx: click.Context, param: click.Parameter, offline: bool) -> None:  # noqa: ARG001 - click's callbacks take three
    """Before anything that might connect is imported: huggingface_hub looks once, when it is."""
    if offline:
        os.environ["HF_HUB_OFFLINE"] = "1"


def _taking_offline(command: click.Command) -> click.Command:
    """The command, and those below it, with `--offline` also where users write it: behind the name."""
    for below in command.commands.values() if isinstance(command, click.Group) else ():
        _taking_offline(below)
    if not any("--offline" in option.opts for option in command.params):
        option = click.Option(["--offline"], is_flag=True, is_eager=True, expose_value=False, hidden=True, callback=_go_offline)
        command.params.append(option)
    return command


@click.group(cls=Commands, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(__version__, prog_name="hubclient")
@click.option("--debug", is_flag=True, help="Show a traceback when something fails.")
@click.option(
    "--offline",
    is_flag=True,
    is_eager=True,
    expose_value=False,
    callback=_go_offline,
    help="Open no connection, as HF_HUB_OFFLINE=1 does; may also follow the command.",
)
@click.pass_context
def cli(ctx: click.Context, debug: bool) -> None:
    """Turn model checkpoints into the layout the next program wants: safetensors, GGUF or MLX, in every direction, exactly.

    Fetch them from the Hugging Face Hub, and look after those on this machine.
    """
    ctx.obj = {"debug": debug}


def main() -> None:
    """Run the command line; exits with the code that the error tree states."""
    arguments = sys.argv[1:]
    os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")  # numpy's threads for matrix products, of which there are none here, spin
    if isinstance(sys.stdout, io.TextIOWrapper):
        sys.stdout.reconfigure(errors="backslashreplace")  # names and metadata may hold what a terminal cannot show
    try:
        status = cli(args=arguments, prog_name="hubclient", standalone_mode=False)
        sys.stdout.flush()
        sys.exit(status if isinstance(status, int) else 0)
    except click.exceptions.Exit as error:
        sys.exit(error.exit_code)
    except click.ClickException as error:
        error.show()
        sys.exit(error.exit_code)
    except (click.Abort, KeyboardInterrupt):
        click.echo("hubclient: interrupted; the same command, given again, goes on from here", err=True)
        sys.exit(_INTERRUPTED)
    except BrokenPipeError:  # the reader of our output has seen enough; click ends so too
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        sys.exit(1)
    except Exception as error:
        if "--debug" in arguments:
            raise
        sys.exit(_explain(error))


def _explain(error: Exception) -> int:
    """Print one sentence and the next thing to try; returns the exit code."""
    if isinstance(error, HubclientError):
        _say(str(error), error.hint)
        return error.exit_code
    if isinstance(error, MemoryError):
        _say("out of memory", "--max-memory and --jobs bound what a conversion takes")
        return _ENVIRONMENT
    if isinstance(error, OSError):
        _say(f"{error.filename or 'system'}: {error.strerror or error}")
        return _ENVIRONMENT
    _say(f"a fault of ours: {type(error).__name__}: {str(error)[:500]}", "run again with `hubclient --debug ...` for details")
    return FAULT


def _say(sentence: str, hint: str | None = None) -> None:
    click.echo(f"hubclient: {printable(sentence)}", err=True)
    if hint:
        click.echo(f"  {printable(hint)}", err=True)

"""`hubclient login`, `logout` and `whoami`: one call each of hubclient.hub.account. No token is ever printed."""

from __future__ import annotations

import sys
from dataclasses import asdict
from typing import TYPE_CHECKING

import click

from hubclient.cli.options import as_json, print_json, printable
from hubclient.errors import UsageError

if TYPE_CHECKING:
    from hubclient.hub.account import Account


@click.command()
@click.option("--token", metavar="TOKEN", help="The token; - reads it from standard input. Asked for by default.")
@as_json
def login(token: str | None, as_json: bool) -> None:
    """Store a token of the Hub's, where hf, transformers and others find it too; the Hub is asked whose it is."""
    from hubclient.hub.account import checked_token
    from hubclient.hub.account import login as store
    from hubclient.hub.net.session import Session

    session = Session.of(token=checked_token(_given(token)))
    session.need_for("login")
    account = store(session)
    if as_json:
        print_json(asdict(account))
        return
    click.echo(printable(f"logged in to {account.endpoint} as {account.name} ({_described(account)})"))
    _print_shadow(account, "stored")


@click.command()
@as_json
def logout(as_json: bool) -> None:
    """Forget the stored token that is in use; other stored ones stay."""
    from hubclient.hub.account import environment_token
    from hubclient.hub.account import logout as forget

    gone = forget()
    if as_json:
        print_json({"logged_out": gone})
    else:
        click.echo("the stored token is forgotten" if gone else "no token is stored")
    if name := environment_token():
        click.echo(f"note: {name} is set: the token in it stays in use", err=True)


@click.command()
@as_json
def whoami(as_json: bool) -> None:
    """Show whose token is in use, what it may do, and where it comes from."""
    from hubclient.hub.account import whoami as ask
    from hubclient.hub.net.session import Session

    account = ask(Session.of())
    if as_json:
        print_json(asdict(account))
        return
    rows = {
        "name": account.name,
        "organisations": ", ".join(account.organisations),
        "token": f"{_described(account)}, {account.origin}",
        "endpoint": account.endpoint,
    }
    for name, text in rows.items():
        if text:
            click.echo(printable(f"{name + ':':15}{text}"))
    _print_shadow(account, "in use")


def _given(token: str | None) -> str:
    """The token as typed or sent: nothing shows it."""
    if token == "-":
        return sys.stdin.readline(1 << 16)
    if token is not None:
        return token
    if not sys.stdin.isatty():
        raise UsageError("there is no terminal to ask for a token at", hint="--token - reads it from standard input")
    asked: str = click.prompt("token (it is not shown)", hide_input=True, err=True)
    return asked


def _described(account: Account) -> str:
    name = f"token {account.token_name}" if account.token_name else "a token"
    return f"{name}, role {account.role}" if account.role else name


def _print_shadow(account: Account, what: str) -> None:
    if account.shadowed:
        told = (
            "HF_TOKEN is set and counts before the stored token, which is another one"
            if what == "in use"
            else "HF_TOKEN is set to another token, and counts before the one that was stored now"
        )
        click.echo(f"note: {told}", err=True)


COMMANDS = (login, logout, whoami)

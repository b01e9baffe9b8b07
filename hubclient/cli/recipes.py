"""`hubclient recipes`: what `--type Q4_K_M` and the like mean, tensor by tensor."""

from __future__ import annotations

import click

from hubclient.cli.options import as_json, console, print_json, printable


@click.group()
def recipes() -> None:
    """List the recipes of quantisation, and show what each one does.

    A recipe says which type each tensor of a GGUF becomes. `convert --type NAME` takes one of these, `convert --recipe FILE`
    one of your own, which may be based on them.
    """


@recipes.command()
@as_json
def ls(as_json: bool) -> None:
    """List all recipes, the largest files first."""
    from hubclient.formats.gguf.catalogue import EXAMPLE, rows

    found = rows()
    if as_json:
        print_json({"model": EXAMPLE, "recipes": [row._asdict() for row in found]})
        return
    from rich.table import Table

    table = Table(box=None, pad_edge=False)
    for heading in ("recipe", "bits per weight", "needs importance", "what it is"):
        table.add_column(heading, justify="right" if heading == "bits per weight" else "left")
    for row in found:
        table.add_row(row.name, f"{row.bits:.2f}", "yes" if row.needs_importance else "", row.description)
    console().print(table)
    click.echo(f"bits per weight of {EXAMPLE}; other models differ a little")


@recipes.command()
@click.argument("name")
@as_json
def show(name: str, as_json: bool) -> None:
    """Show what the recipe NAME does: one of those that are listed, or a recipe file."""
    from hubclient.formats.gguf import catalogue
    from hubclient.formats.gguf.recipes import recipe

    found = recipe(name)
    if as_json:
        print_json(catalogue.as_json(found))
        return
    for line in catalogue.in_words(found):
        click.echo(printable(line))


COMMANDS = (recipes,)

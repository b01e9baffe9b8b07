"""`hubclient place`: one call of hubclient.place."""

from __future__ import annotations

import click

from hubclient.cli.options import SIZE, as_json, console, human, print_json, printable


@click.command()
@click.argument("source")
@click.option(
    "--device", "devices", multiple=True, required=True, metavar="NAME=SIZE", help="Such as cuda:0=24GiB or cpu=64GiB; in order."
)
@click.option("--context", type=click.IntRange(1), help="Tokens of context whose keys and values must fit as well.")
@as_json
def place(devices: tuple[str, ...], source: str, context: int | None, as_json: bool) -> None:
    """Decide which module of SOURCE goes on which device, from headers alone.

    SOURCE is a folder, a file, or org/name[@revision][:file] of the Hub, of which nothing but headers is downloaded.
    The experts of a mixture are the first to go to "cpu" or "disk". With --json, "device_map" is what accelerate and
    Transformers take as it is, and "override_tensor" what llama.cpp's option of that name takes.
    """
    from hubclient.placement import place as distribute

    sizes = dict(map(_device, devices))
    if len(sizes) < len(devices):
        raise click.BadParameter("a device is named twice", param_hint="--device")
    plan = distribute(source, sizes, context=context)
    if as_json:
        print_json(plan.as_json())
        return
    from rich.table import Table

    table = Table(box=None)
    for column in ("module", "weights", "cache", "device"):
        table.add_column(column, justify="right" if column in ("weights", "cache") else "left")
    for module in plan.modules:
        cache = human(module.cache) if module.cache else ""
        table.add_row(printable(module.name), human(module.weights), cache, printable(plan.homes[module.name]))
    console().print(table)
    for device, size in plan.sizes.items():
        click.echo(f"{printable(device)}: {human(plan.used.get(device, 0))} of {human(size)}")
    if not plan.fits:
        click.echo("not everything fits: what is left is placed on disk", err=True)


def _device(text: str) -> tuple[str, int]:
    name, separator, size = text.partition("=")
    if not separator or not name:
        raise click.BadParameter(f"{text!r} is not NAME=SIZE, such as cuda:0=24GiB", param_hint="--device")
    return name, SIZE.convert(size, None, None)


COMMANDS = (place,)

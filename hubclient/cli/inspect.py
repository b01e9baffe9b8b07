"""`hubclient inspect`: one call of hubclient.inspection.inspect."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import click

from hubclient.cli.options import as_json, console, human, print_json, printable

if TYPE_CHECKING:
    from rich.table import Table

_SHOWN = 70  # characters of a metadata value


@click.command()
@click.argument("source")
@click.option("--tensors", is_flag=True, help="List every tensor.")
@as_json
def inspect(source: str, tensors: bool, as_json: bool) -> None:
    """Show what SOURCE holds: architecture, sizes, encodings, metadata; from its headers.

    SOURCE is a folder, a file, or org/name[@revision][:file] of the Hub, of which nothing but headers is downloaded.
    """
    from hubclient.checkpoint import Checkpoint
    from hubclient.inspection import inspect as look

    found = look(Checkpoint.from_pretrained(source, only="config", headers_only=True), tensors=tensors)
    if as_json:
        print_json(found)
    else:
        _print(found)


def _print(found: dict[str, Any]) -> None:
    from rich.table import Table

    table = Table(box=None, show_header=False)
    architecture = f"{found['architecture']} ({found['class']})" if found["architecture"] else found["why"]
    rows = {
        "format": found["format"],
        "architecture": architecture,
        "converts to": ", ".join(found.get("converts_to", ())) or "nothing here",
        **({"because": found["why"]} if found["architecture"] and "why" in found else {}),
        "parameters": f"{found['parameters']:,} in {found['tensor_count']:,} tensors",
        **({"bits per weight": f"{found['bits_per_weight']:.2f}"} if found["bits_per_weight"] else {}),
        "files": f"{len(found['files'])} ({human(sum(file['bytes'] for file in found['files']))})",
        **({"beside them": ", ".join(found["sidecars"])} if found["sidecars"] else {}),
    }
    for name, text in rows.items():
        table.add_row(name, printable(str(text)))
    console().print(table)
    if found["mix"]:
        console().print(_mix(found["mix"]))
    if found["metadata"]:
        listed = Table(box=None, show_header=False, title="metadata", title_justify="left")
        for key, value in found["metadata"].items():
            text = " ".join(str(value if not isinstance(value, dict) else f"{value['length']:,} values").split())
            listed.add_row(printable(key), printable(text if len(text) <= _SHOWN else text[: _SHOWN - 1] + "…"))
        console().print(listed)
    if "tensors" in found:
        listed = Table(box=None)
        for column in ("tensor", "shape", "encoding", "bytes"):
            listed.add_column(column)
        for tensor in found["tensors"]:
            shape, nbytes = "x".join(map(str, tensor["shape"])), f"{tensor['bytes']:,}"
            listed.add_row(printable(tensor["name"]), shape, tensor["encoding"], nbytes)
        console().print(listed)


def _mix(shares: dict[str, dict[str, Any]]) -> Table:
    """How many tensors are in which encoding, and what they take."""
    from rich.table import Table

    table = Table(box=None, title="mix", title_justify="left")
    for column in ("encoding", "tensors", "weights", "size", "bits per weight"):
        table.add_column(column, justify="left" if column == "encoding" else "right")
    for name, share in shares.items():
        counts = f"{share['tensors']:,}", f"{share['weights']:,}"
        bits = f"{share['bits_per_weight']:.2f}" if share["weights"] else ""
        table.add_row(name, *counts, human(share["bytes"]), bits)
    return table


COMMANDS = (inspect,)

"""`hubclient verify`: one call of hubclient.verify."""

from __future__ import annotations

import click

from hubclient.cli.options import as_json, importance_in, print_json, printable, with_weights


@click.command()
@click.argument("out")
@click.option("--against", required=True, metavar="SOURCE", help="The checkpoint that OUT should have come from.")
@click.option("--jobs", type=click.IntRange(1), help="Threads; by default one per core.")
@click.option("--imatrix", metavar="FILE", help="The importance matrix that OUT was quantised by.")
@as_json
@click.pass_context
def verify(ctx: click.Context, out: str, against: str, jobs: int | None, imatrix: str | None, as_json: bool) -> None:
    """Prove that OUT is the same model as SOURCE; exit code 1 if it is not.

    Every tensor is exact (equal bytes under its encoding), within what the encoding may lose, or wrong. Either may be a folder,
    a file, or org/name[@revision][:file] of the Hub, which is downloaded into the Hugging Face cache.
    """
    from hubclient.checkpoint import Checkpoint
    from hubclient.verification import verify as compare

    tested, reference = (with_weights(Checkpoint.from_pretrained(source, headers_only=True)) for source in (out, against))
    report = compare(tested, reference, jobs=jobs, importance=importance_in(imatrix))
    if as_json:
        print_json(report.as_json())
    else:
        counts = ", ".join(f"{count} {verdict}" for verdict, count in report.counts().items())
        click.echo(f"{out}: {'the same model' if report.ok else 'NOT the same model'} as {against} ({counts or 'no tensors'})")
        for tensor in report.tensors:
            if tensor.verdict not in ("exact", "within"):
                why = tensor.why or (f"off by {tensor.largest:g}" if tensor.verdict == "wrong" else "")
                click.echo(printable(f"  {tensor.name}: {tensor.verdict}{f' ({why})' if why else ''}"))
        for difference in report.differences:
            click.echo(printable(f"  {difference}"))
        for sentence in report.uncompared:
            click.echo(printable(f"note: {sentence}"), err=True)
    ctx.exit(0 if report.ok else 1)


COMMANDS = (verify,)

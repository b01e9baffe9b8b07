"""`hubclient imatrix`: one call of hubclient.imatrix.compute and one of save."""

from __future__ import annotations

import click

from hubclient.cli.options import SIZE, as_json, print_json, printable, progress_bar, with_weights


@click.command()
@click.argument("source")
@click.option("--text", required=True, metavar="FILE", help="The text that the model reads.")
@click.option("--context", type=click.IntRange(1), default=512, show_default=True, help="Tokens of a chunk.")
@click.option("--output", "out", metavar="OUT", help="The file to write; NAME.imatrix.gguf in the working folder by default.")
@click.option("--chunks", "limit", type=click.IntRange(1), help="Read at most this many chunks.")
@click.option("--process-output", is_flag=True, help="Measure output.weight as well.")
@click.option("--device", default="auto", show_default=True, help="Where to compute: cpu, cuda:0, ...")
@click.option("--max-memory", type=SIZE, default="4G", show_default=True, help="Bound on what chunks keep between blocks.")
@click.option("--force", is_flag=True, help="Replace an output that is already there.")
@as_json
def imatrix(
    source: str,
    text: str,
    context: int,
    out: str | None,
    limit: int | None,
    process_output: bool,
    device: str,
    max_memory: int,
    force: bool,
    as_json: bool,
) -> None:
    """Measure how much each column of SOURCE's weights matters while it reads a text, as llama-imatrix does.

    SOURCE is a folder, a file, or org/name[@revision][:file] of the Hub, which is downloaded into the Hugging Face cache.
    The file that is written serves `hubclient convert --imatrix` and llama-quantize. Needs PyTorch and Transformers, and memory
    for one block of the model at a time.
    """
    from hubclient.checkpoint import Checkpoint
    from hubclient.imatrix import compute, refuse_existing, save

    checkpoint = Checkpoint.from_pretrained(source, headers_only=True)
    path = refuse_existing(out if out is not None else f"{checkpoint.name}.imatrix.gguf", checkpoint, force=force)
    checkpoint = with_weights(checkpoint)
    with progress_bar("measuring") as progress:
        matrix = compute(
            checkpoint, text, context=context, chunk_limit=limit, process_output=process_output, device=device,
            max_memory=max_memory, progress=progress,
        )  # fmt: skip
    save(matrix, path)
    partial = {name: [entry.used, len(entry.counts)] for name, entry in matrix.entries.items() if entry.used < len(entry.counts)}
    if as_json:
        told = {"written": str(path), "entries": len(matrix.entries), "chunks": matrix.chunks, "chunk_size": matrix.chunk_size}
        print_json({**told, "datasets": list(matrix.datasets), "unused_experts": partial})
        return
    click.echo(f"{path}: {len(matrix.entries)} entries from {matrix.chunks} chunks of {matrix.chunk_size} tokens")
    for name, (used, count) in partial.items():
        click.echo(printable(f"{name}: no token went through {count - used} of {count} experts"), err=True)


COMMANDS = (imatrix,)

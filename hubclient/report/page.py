"""A report as one page of HTML that needs nothing else: no other file, no network; a policy in it says so to the browser."""

from __future__ import annotations

import base64
import hashlib
from collections.abc import Iterable, Sequence
from pathlib import Path

from hubclient import __version__
from hubclient.mix import Share
from hubclient.report.markup import Markup, group, tag, text
from hubclient.report.plot import numbered, plot
from hubclient.report.style import SCRIPT, STYLE
from hubclient.report.values import OutputReport, Report, TensorReport

_PAGE = """<!DOCTYPE html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<meta http-equiv="Content-Security-Policy" content="default-src 'none'; style-src '{style_hash}'; script-src '{script_hash}'">
<title>{title}</title>
<style>{style}</style>
</head>
<body>
{body}
<script>{script}</script>
</body>
</html>
"""
_OUTPUTS = ("output", "size", "bits/weight", "relative RMSE", "lowest cosine")
_TYPES = ("type", "tensors", "bits/weight", "bytes", "weights")
_TENSORS = (
    "tensor", "type", "relative RMSE", "cosine", "bits/weight", "worst block", "at", "RMSE", "values", "was", "shape", "bytes",
)  # fmt: skip
_TEXTS = ("type", "was", "shape", "values", "at")


def page(report: Report) -> str:
    """The whole page."""
    numbers = numbered(report.outputs)
    sections = [_section(output, index, plot(output, numbers)) for index, output in enumerate(report.outputs)]
    title = f"{report.name}: {', '.join(output.type for output in report.outputs)}"
    return _PAGE.format(
        title=text(title), body=group(_head(report), *sections), style=STYLE, script=SCRIPT,
        style_hash=_hash(STYLE), script_hash=_hash(SCRIPT),
    )  # fmt: skip


def _head(report: Report) -> Markup:
    kind = f"{report.source_format}{f', {report.architecture}' if report.architecture else ''}; hubclient {__version__}"
    head = (tag("h1", f"{report.name}, converted"), tag("p", report.source), tag("p", kind, class_="quiet"))
    return group(*head, _outputs(report.outputs) if len(report.outputs) > 1 else Markup())


def _outputs(outputs: Iterable[OutputReport]) -> Markup:
    rows = []
    for index, output in enumerate(outputs):
        error, cosine = output.error, output.lowest_cosine
        rows.append([
            tag("a", Path(output.path).name, href=f"#output-{index}"),
            tag("data", _size(output.size), value=output.size),
            _number(output.total.bits_per_weight),
            _percent(None if error is None else error.relative),
            _number(None if cosine is None else cosine[0]),
        ])  # fmt: skip
    return group(tag("h2", "Outputs"), _table(_OUTPUTS, rows))


def _section(output: OutputReport, index: int, figure: Markup) -> Markup:
    told = (
        _list("Not carried over", output.losses),
        _list("Notes", output.notes),
        _list("Left out, as readers can compute it", output.dropped),
    )
    return tag(
        "section",
        tag("h2", Path(output.path).name), tag("p", f"{output.type}, {output.path}", class_="quiet"), _facts(output), figure,
        tag("h3", "Types"), _table(_TYPES, map(_type, output.mix.items())), *told,
        tag("h3", "Tensors"), _table(_TENSORS, map(_tensor, output.tensors), "sortable named"),
        id=f"output-{index}",
    )  # fmt: skip


def _facts(output: OutputReport) -> Markup:
    facts = [
        ("size", _size(output.size), f"{output.size:,} bytes in all files"),
        ("bits per weight", _shown(output.total.bits_per_weight, 4), f"{output.total.weights:,} weights"),
    ]
    if output.error is not None:
        relative = f"{output.error.relative * 100:.4g}%"
        facts.append(("relative RMSE", relative, f"RMSE {_shown(output.error.rmse)}, over {output.measured:,} quantised weights"))
    if output.lowest_cosine is not None:
        facts.append(("lowest cosine", _shown(output.lowest_cosine[0]), output.lowest_cosine[1]))
    if output.replaced:
        facts.append(("replaced", f"{output.replaced:,}", "NaN and infinities, which no block holds"))
    return tag("dl", *(tag("div", tag("dt", name), tag("dd", value, tag("small", more))) for name, value, more in facts))


def _list(name: str, items: Sequence[str]) -> Markup:
    return group(tag("h3", name), tag("ul", *(tag("li", item) for item in items), class_="told")) if items else Markup()


def _type(row: tuple[str, Share]) -> list[Markup]:
    encoding, share = row
    return [text(encoding), *map(_number, (share.tensors, share.bits_per_weight, share.nbytes, share.weights))]


def _tensor(tensor: TensorReport) -> list[Markup]:
    error = tensor.error
    worst = None if error is None else error.worst
    return [
        Markup(text(tensor.name).replace(".", ".<wbr>")),
        text(tensor.encoding),
        _percent(None if error is None else error.relative),
        _number(None if error is None else error.cosine),
        _number(tensor.share.bits_per_weight),
        _number(None if worst is None else worst.rmse),
        text("" if worst is None else f"row {worst.row}, column {worst.column}"),
        _number(None if error is None else error.rmse),
        text(_values(tensor)),
        text(tensor.source_encoding),
        text("×".join(map(str, tensor.shape))),
        _number(tensor.share.nbytes),
    ]


def _values(tensor: TensorReport) -> str:
    """What became of the values, in a few words."""
    if tensor.replaced:
        return f"{tensor.fidelity}, {tensor.replaced:,} replaced"
    return f"{tensor.fidelity}, {tensor.changed:,} changed" if tensor.changed else tensor.fidelity


def _table(columns: Sequence[str], rows: Iterable[Sequence[Markup]], look: str = "sortable") -> Markup:
    """A table in a box of its own, which scrolls sideways where the page is too narrow; the first column names the row."""
    sides = ["left" if name in _TEXTS else None for name in columns]
    head = tag("tr", *(tag("th", name, scope="col", class_=side) for name, side in zip(columns, sides, strict=True)))
    body = (
        tag(
            "tr",
            tag("th", row[0], scope="row"),
            *(tag("td", cell, class_=side) for cell, side in zip(row[1:], sides[1:], strict=True)),
        )
        for row in rows
    )
    return tag("div", tag("table", tag("thead", head), tag("tbody", *body), class_=look), class_="box", tabindex=0)


def _number(value: float | None) -> Markup:
    """A number that rows can be sorted by."""
    return Markup() if value is None else tag("data", _shown(value), value=value)


def _percent(value: float | None) -> Markup:
    return Markup() if value is None else tag("data", f"{value * 100:.4g}%", value=value)


def _size(nbytes: int) -> str:
    return f"{nbytes / 1e9:,.2f} GB" if nbytes >= 1e9 else f"{nbytes / 1e6:,.2f} MB"


def _shown(value: float | None, digits: int = 6) -> str:
    if value is None:
        return "-"
    return f"{value:,}" if isinstance(value, int) else f"{value:.{digits}g}"


def _hash(content: str) -> str:
    return f"sha256-{base64.b64encode(hashlib.sha256(content.encode()).digest()).decode()}"

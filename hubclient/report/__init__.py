"""What a conversion did to the weights, tensor by tensor: plain numbers, as JSON or as one page of HTML.

plan = checkpoint.plan(..., quantization=Quantization(measure=True))
write_report(Report.of(plan, run(plan)), Path("report.html"))
"""

from __future__ import annotations

import json
import os
from collections.abc import Collection
from pathlib import Path

from hubclient.errors import EnvironmentFault, OutputExists, UsageError
from hubclient.report.values import Report

__all__ = ["Report", "check_report_path", "write_report"]


def check_report_path(path: Path, *, force: bool = False, sources: Collection[Path] = ()) -> None:
    """To be called before anything is converted: UsageError if no report can have that name or it is one of the `sources`,
    OutputExists if something is there and `force` does not allow to replace it, EnvironmentFault if nothing can be written there.
    """
    if path.suffix.lower() not in (".json", ".html"):
        raise UsageError(f"{path}: a report is written as .json or .html, and its name must end so")
    if "{" in path.name:
        raise UsageError(f"{path}: one report is about all outputs, so there is nothing to fill into its name")
    if path.is_dir():
        raise UsageError(f"{path}: is a folder where the report is to be written")
    if Path(os.path.realpath(path)) in sources:
        raise UsageError(f"{path}: is a file of the source; name another file for the report")
    if os.path.lexists(path) and not force:
        raise OutputExists(f"{path}: is already there", path, hint="--force replaces it")
    folder = next(parent for parent in path.absolute().parents if parent.exists())
    if not folder.is_dir() or not os.access(folder, os.W_OK):
        raise EnvironmentFault(f"{path}: no report can be written there, as {folder} takes no files", path)


def write_report(report: Report, path: Path) -> None:
    """Write a report, as the ending of the name says, in place of what is there. It appears when it is complete.

    Raises UsageError for another ending, and EnvironmentFault.
    """
    check_report_path(path, force=True)
    text = _page(report) if path.suffix.lower() == ".html" else _json(report)
    final = Path(os.path.realpath(path))  # a link stays, and what it points to is written
    partial = final.with_name(final.name + ".partial")
    try:
        final.parent.mkdir(parents=True, exist_ok=True)
        try:
            partial.write_bytes(text.encode())
            partial.replace(final)
        finally:
            partial.unlink(missing_ok=True)
    except OSError as error:
        raise EnvironmentFault(f"{path}: the report cannot be written ({error.strerror or error})", path) from error


def _page(report: Report) -> str:
    from hubclient.report.page import page

    return page(report)


def _json(report: Report) -> str:
    """Strict JSON, in ASCII: names may hold what no encoding can, and numbers may be none, which are texts then."""
    value = json.loads(json.dumps(report.as_json()), parse_constant=str)
    return json.dumps(value, indent=1) + "\n"

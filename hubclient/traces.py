"""What was made from which snapshot of the cache, noted there, so that whoever collects snapshots can say what they were good for."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING

from hubclient.cache.layout import RepoId, RepoPaths, is_commit

if TYPE_CHECKING:
    from hubclient.plan import Plan

_SNAPSHOTS = "snapshots"


def snapshot_of(path: Path) -> tuple[RepoPaths, str] | None:
    """The repository's places and the commit, if `path` is, or is in, a snapshot of a Hugging Face cache; no link is followed."""
    whole = Path(os.path.normpath(path.absolute()))
    for folder in (whole, *whole.parents):
        if folder.parent.name == _SNAPSHOTS and is_commit(folder.name):
            repo = RepoId.of_folder(folder.parent.parent.name)
            return (RepoPaths(folder.parent.parent.parent, repo), folder.name) if repo is not None else None
    return None


def note_outputs(plan: Plan) -> None:
    """Note the outputs of a plan that was carried out, if it was made from a snapshot and the cache can be written."""
    found = snapshot_of(plan.source)
    if found is None:
        return
    from hubclient.cache.notes import Output, mark_used, now, record_output

    paths, commit = found
    mark_used(paths, commit)
    for output in plan.outputs:
        record_output(paths, Output(str(output.path.absolute()), output.format, output.type, commit, now()))

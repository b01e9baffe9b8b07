"""The command line in this process, for tests that repeat it often; `running.command` has it in one of its own."""

from __future__ import annotations

import io
import os
import sys
from contextlib import redirect_stderr, redirect_stdout
from pathlib import Path
from typing import NamedTuple
from unittest import mock

from hubclient.cli import main


class Said(NamedTuple):
    """What a command returned and printed."""

    code: int
    out: str
    err: str

    @property
    def sentence(self) -> str:
        """What it refused with: one line, perhaps with a hint below, that is no traceback and that any terminal shows."""
        first, *hint = self.err.splitlines()
        assert self.code in (2, 3, 4, 5) and not self.out, self
        assert first.startswith("hubclient: ") and "fault of ours" not in first and len(hint) <= 1 and len(first) < 1000, self
        assert all(line.isprintable() for line in (first, *hint)), self
        return first


def hubclient(*arguments: str | Path) -> Said:
    """`hubclient` with these arguments. The environment is as before when it ends."""
    out, err = io.StringIO(), io.StringIO()
    code = None
    with mock.patch.dict(os.environ), mock.patch.object(sys, "argv", ["hubclient", *map(str, arguments)]):
        try:
            with redirect_stdout(out), redirect_stderr(err):
                main()
        except SystemExit as ended:
            code = ended.code
    said = Said(code if isinstance(code, int) else 1, out.getvalue(), err.getvalue())
    assert "Traceback" not in said.err and "fault of ours" not in said.err, said
    return said

"""Every named fault point is in the source once at least, and every one in the source is named; an armed one ends the process."""

from __future__ import annotations

import re
import signal
import subprocess
import sys
from pathlib import Path

from hubclient.ground.faultpoints import POINTS

ROOT = Path(__file__).resolve().parent.parent


def test_the_table_names_the_points_of_the_source():
    sources = [path for room in ("hubclient", "cache") for path in (ROOT / room).rglob("*.py") if "faultpoints" not in path.name]
    reached = {name for path in sources for name in re.findall(r'\breach\(\s*"([^"]+)"', path.read_text())}
    assert reached == set(POINTS)


def test_an_armed_point_ends_the_process_at_its_turn():
    code = (
        "from hubclient.ground.faultpoints import reach\nfor turn in range(5): print(turn, flush=True); reach('pull.link-made')"
    )
    for armed, printed, status in (
        ("pull.link-made", 1, -signal.SIGKILL),
        ("pull.link-made:3", 3, -signal.SIGKILL),
        ("gc.x", 5, 0),
        ("", 5, 0),
    ):
        done = subprocess.run(
            [sys.executable, "-c", code], env={"HUBCLIENT_FAULTPOINT": armed}, cwd=ROOT, capture_output=True, text=True
        )
        assert (done.stdout.split(), done.returncode) == ([str(turn) for turn in range(printed)], status)

"""Run one command and say how long it took and how much memory it had resident at most.

    python benchmarks/child.py [--sync PATH] -- COMMAND...

Prints JSON: status, seconds, peak (bytes). With --sync the time includes bringing a file, or a folder's files, to the disk,
whether or not the command did so itself. A process of its own, because what Linux reports as a child's peak begins with the size of the
process that started it; this one stays at a few megabytes.
"""

import json
import os
import sys
import time


def run(command: list[str], sync: str | None) -> dict[str, float]:
    """Status, seconds and peak of a command whose output goes nowhere but for what it says on stderr."""
    quiet = [(os.POSIX_SPAWN_OPEN, 1, os.devnull, os.O_WRONLY, 0)]
    start = time.perf_counter()
    pid = os.posix_spawnp(command[0], command, os.environ, file_actions=quiet)
    _, status, usage = os.wait4(pid, 0)
    if sync is not None and status == 0:
        for path in [os.path.join(sync, name) for name in os.listdir(sync)] if os.path.isdir(sync) else [sync]:
            descriptor = os.open(path, os.O_RDWR)
            os.fsync(descriptor)
            os.close(descriptor)
    seconds = time.perf_counter() - start
    unit = 1 if sys.platform == "darwin" else 1024
    return {"status": os.waitstatus_to_exitcode(status), "seconds": seconds, "peak": usage.ru_maxrss * unit}


if __name__ == "__main__":
    at = sys.argv.index("--")
    options = sys.argv[1:at]
    print(json.dumps(run(sys.argv[at + 1 :], options[1] if options[:1] == ["--sync"] else None)))

"""Kills commands at random times, again and again, and looks at what is left: nothing lost, nothing half there, the next run completes.

    python scripts/kill_at_random.py                       # 200 rounds of each verb; exit status 1 if anything is wrong
    python scripts/kill_at_random.py --verb pull --rounds 50 --seed 7

A round begins with a fresh copy of a cache and kills the command one to four times, at moments that are spread evenly over
the time that it takes when nobody kills it. Rounds are numbered from the seed on: `--seed N --rounds 1` plays round N again,
as far as the machine's own timing allows.
"""

from __future__ import annotations

import argparse
import logging
import random
import shutil
import statistics
import sys
import tempfile
from collections import Counter
from collections.abc import Mapping
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
sys.path[:0] = [str(ROOT), str(ROOT / "tests")]

from killscenes import MODEL, NOW, Scene, Trial, World, running_world  # noqa: E402

LARGE = 10 << 20  # bytes of a file; the ledger is told of every 8 MiB
TWEAKS = {
    "hubclient.cache.integrity.marks.EVERY_BYTES": 1 << 20
}  # so that a verification of so little has anything to go on from
VERBS: Mapping[str, tuple[Scene, ...]] = {
    "pull": (
        Scene("_first", ("pull", MODEL)),
        Scene("_empty", ("pull", MODEL)),
        Scene("_twin", ("pull", f"{MODEL}@v1")),
        Scene("_store", ("pull", f"{MODEL}@v1")),
        Scene("_unfinished", ("pull", MODEL)),
    ),
    "gc": (
        Scene("_several", ("cache", "gc", "--keep-last", "1", *NOW)),
        Scene("_several", ("cache", "gc", "--max-age", "0s", *NOW)),
        Scene("_store", ("cache", "gc", "--max-age", "0s", *NOW)),
        Scene("_orphaned", ("cache", "prune", *NOW)),
    ),
    "repair": (
        Scene("_spoilt", ("cache", "repair")),
        Scene("_spoilt_alone", ("cache", "repair")),
        Scene("_store_spoilt", ("cache", "repair")),
    ),
    "sync": (Scene("_locked", ("sync",)), Scene("_several", ("lock", MODEL, "org/twin"))),
    "verify": (Scene("_several", ("cache", "verify")), Scene("_bad_catalog", ("cache", "ls"))),
}


class Verb:
    """The rounds of one verb, in a world."""

    def __init__(self, world: World, scenes: tuple[Scene, ...], folder: Path) -> None:
        self._world, self._scenes, self._folder = world, scenes, folder
        self._lasts: dict[Scene, float] = {}
        self.counts: Counter[str] = Counter()

    def play(self, seed: int) -> list[str]:
        """One round; what is wrong after it."""
        chance = random.Random(seed)
        scene = chance.choice(self._scenes)
        lasts = self._lasting(scene)
        trial = Trial(self._world, scene, self._folder / "round")
        found: list[str] = []
        for _ in range(chance.choice((1, 1, 2, 4))):
            done = trial.play(after=chance.uniform(0, lasts))
            self.counts["killed" if done.killed else "too late"] += 1
            found += trial.wrong()
            if not done.killed:
                found += [f"exit status {done.status}: {done.out}"] if done.status else []
                break
        found += trial.wrong_when_completed()
        if not found:
            shutil.rmtree(trial.place)
        return [f"{' '.join(scene.command)} ({scene.start.strip('_')}): {fault}" for fault in found]

    def _lasting(self, scene: Scene) -> float:
        """Seconds that the command takes when nobody kills it: half of the time less."""
        if scene not in self._lasts:
            times = []
            for _ in range(3):
                trial = Trial(self._world, scene, self._folder / "round")
                times.append(trial.play().seconds)
                shutil.rmtree(trial.place)
            self._lasts[scene] = statistics.median(times)
        return self._lasts[scene]


def main() -> int:
    """Play; 1 if something is wrong."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=200, help="of each verb (default 200)")
    parser.add_argument("--verb", choices=[*VERBS, "all"], default="all")
    parser.add_argument("--seed", type=int, default=0, help="the first round's number (default 0)")
    arguments = parser.parse_args()
    logging.getLogger("asyncio").setLevel(logging.CRITICAL)  # the hub's, of clients that are gone
    wrong = False
    folder = Path(tempfile.mkdtemp(prefix="kill-at-random-"))
    with running_world(folder / "world", LARGE, TWEAKS) as world:
        for name in VERBS if arguments.verb == "all" else [arguments.verb]:
            verb, faulty = Verb(world, VERBS[name], folder), 0
            for seed in range(arguments.seed, arguments.seed + arguments.rounds):
                found = verb.play(seed)
                if found:
                    faulty += 1
                    kept = (folder / "round").rename(folder / f"{name}-{seed}")
                    print(f"{name}, seed {seed}, what is left is in {kept}:", *found, sep="\n  ", flush=True)
            counts = f"{verb.counts['killed']} kills, {verb.counts['too late']} came too late"
            print(f"{name}: {arguments.rounds} rounds, {counts}, {faulty} rounds with faults", flush=True)
            wrong |= bool(faulty)
    if not wrong:
        shutil.rmtree(folder)
    return int(wrong)


if __name__ == "__main__":
    sys.exit(main())

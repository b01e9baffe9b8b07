"""The scoreboard of parity: how many goldens each family's GGUFs equal, and the reason for each that does not."""

from __future__ import annotations

import sys
import tempfile
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
sys.path[:0] = [str(ROOT), str(ROOT / "tests")]

from golden import EXCEPTIONS, FAMILIES, FOLDER, TYPES, Golden, Workshop, differences, goldens, unexplained  # noqa: E402

from hubclient.errors import HubclientError  # noqa: E402


def verdict(golden: Golden, kind: str, workshop: Workshop) -> str:
    """Empty if equal; else why not, after "!" unless that is as it should be."""
    try:
        found = differences(golden, workshop.gguf(golden, kind, pre=golden.pre), kind)
    except HubclientError as error:
        return f"! {type(error).__name__}: {error}"
    if left := unexplained(golden, found):
        return "! " + "; ".join(
            f"{what}: {', '.join(lines[:3])}{' ...' if len(lines) > 3 else ''}" for what, lines in left.items()
        )
    return EXCEPTIONS[golden.name][1] if found else ""


def main() -> int:
    """Print the scoreboard; 1 if anything differs without a listed reason."""
    present = {golden.name: golden for golden in goldens()}
    reasons: list[str] = []
    exact = total = failed = 0
    print(f"goldens of {FOLDER}\n")
    print(f"{'family':<10}" + "".join(f"{kind:>8}" for kind in TYPES))
    with tempfile.TemporaryDirectory() as folder:
        workshop = Workshop(Path(folder))
        for family, names in FAMILIES.items():
            found = [present[name] for name in names if name in present]
            verdicts = {(golden.name, kind): verdict(golden, kind, workshop) for golden in found for kind in TYPES}
            scores = [sum(not verdicts[golden.name, kind] for golden in found) for kind in TYPES]
            print(f"{family:<10}" + "".join(f"{f'{score}/{len(found)}':>8}" for score in scores))
            exact, total = exact + sum(scores), total + len(verdicts)
            failed += sum(why.startswith("!") for why in verdicts.values())
            reasons += [f"{name} {kind}: {why}" for (name, kind), why in verdicts.items() if why]
    print(f"\n{exact} of {total} equal")
    print("".join(f"  {reason}\n" for reason in reasons), end="")
    return int(failed > 0)


if __name__ == "__main__":
    sys.exit(main())

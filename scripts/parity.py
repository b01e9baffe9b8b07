"""The scoreboard of parity: how many goldens each family's GGUFs and MLX folders equal, and the reason for each that does not."""

from __future__ import annotations

import sys
import tempfile
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
sys.path[:0] = [str(ROOT), str(ROOT / "tests")]

from golden import (  # noqa: E402
    EXCEPTIONS,
    FAMILIES,
    FOLDER,
    TYPES,
    VARIANTS,
    Golden,
    Workshop,
    differences,
    goldens,
    mlx_differences,
    unexplained,
)

from hubclient.errors import HubclientError  # noqa: E402


def verdict(golden: Golden, kind: str, workshop: Workshop) -> str:
    """Empty if equal; else why not, after "!" unless that is as it should be."""
    try:
        if kind in VARIANTS:
            found = mlx_differences(golden, workshop.mlx(golden, kind), kind)
            return "! " + "; ".join(f"{what}: {', '.join(lines[:3])}" for what, lines in found.items()) if found else ""
        found = differences(golden, workshop.gguf(golden, kind, pre=golden.pre), kind)
    except HubclientError as error:
        return f"! {type(error).__name__}: {error}"
    if left := unexplained(golden, found):
        return "! " + "; ".join(
            f"{what}: {', '.join(lines[:3])}{' ...' if len(lines) > 3 else ''}" for what, lines in left.items()
        )
    return EXCEPTIONS[golden.name][1] if found else ""


def made(golden: Golden, kind: str) -> bool:
    """Whether the reference made this output: all GGUFs, and MLX folders of the classes that mlx-lm has."""
    return kind in TYPES or "tensors" in golden.record.get("mlx", {}).get(kind, {})


def main() -> int:
    """Print the scoreboard; 1 if anything differs without a listed reason."""
    present = {golden.name: golden for golden in goldens()}
    reasons: list[str] = []
    exact = total = failed = 0
    print(f"goldens of {FOLDER}\n")
    kinds = (*TYPES, *VARIANTS)
    print(f"{'family':<14}" + "".join(f"{f'mlx {kind}' if kind in VARIANTS else kind:>8}" for kind in kinds))
    with tempfile.TemporaryDirectory() as folder:
        workshop = Workshop(Path(folder))
        for family, names in FAMILIES.items():
            found = [present[name] for name in names if name in present]
            there = {kind: [golden for golden in found if made(golden, kind)] for kind in kinds}
            verdicts = {(one.name, kind): verdict(one, kind, workshop) for kind in kinds for one in there[kind]}
            scores = {kind: sum(not verdicts[one.name, kind] for one in there[kind]) for kind in kinds}
            row = (f"{scores[kind]}/{len(there[kind])}" if there[kind] else "-" for kind in kinds)
            print(f"{family:<14}" + "".join(f"{cell:>8}" for cell in row))
            exact, total = exact + sum(scores.values()), total + len(verdicts)
            failed += sum(why.startswith("!") for why in verdicts.values())
            reasons += [f"{name} {kind}: {why}" for (name, kind), why in verdicts.items() if why]
    print(f"\n{exact} of {total} equal")
    print("".join(f"  {reason}\n" for reason in reasons), end="")
    return int(failed > 0)


if __name__ == "__main__":
    sys.exit(main())

"""How large the family modules are, and which of them use each word of the declaration language."""

from __future__ import annotations

import ast
import sys
from collections.abc import Iterator
from pathlib import Path
from statistics import median

ROOT = Path(__file__).resolve().parent.parent
FOLDER = ROOT / "architectures"
PACKAGE = "hubclient.architectures"


def family_modules() -> Iterator[Path]:
    """The modules that declare architectures."""
    sys.path.insert(0, str(ROOT))
    from hubclient.plugins.builtins import ARCHITECTURES

    yield from (FOLDER / f"{name.removeprefix(PACKAGE + '.')}.py" for name in sorted(ARCHITECTURES))


def words(path: Path) -> set[str]:
    """The words of the language that a module imports."""
    found: set[str] = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.ImportFrom) and node.module == PACKAGE:
            found |= {alias.name for alias in node.names}
    return found


def main() -> None:
    """Print both."""
    modules = list(family_modules())
    sizes = {path.stem: len(path.read_text().splitlines()) for path in modules}
    print(
        f"{len(sizes)} family modules, {min(sizes.values())} to {max(sizes.values())} lines, median {median(sizes.values()):g}\n"
    )
    for name, lines in sorted(sizes.items(), key=lambda item: item[1]):
        print(f"{lines:5d}  {name}")
    used: dict[str, list[str]] = {}
    for path in sorted(FOLDER.glob("*.py")):
        for word in words(path):
            used.setdefault(word, []).append(path.stem)
    print()
    for word, users in sorted(used.items(), key=lambda item: -len(item[1])):
        print(f"{len(users):5d}  {word}: {', '.join(users)}")


if __name__ == "__main__":
    main()

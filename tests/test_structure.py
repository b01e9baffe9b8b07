"""The house stands as docs/architecture.md draws it: floors, packages, what start-up imports."""

from __future__ import annotations

import ast
import re
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
ROOMS = ("architectures", "cache", "formats", "plugins")
# Who may import whom, besides itself and the ground: hubclient.errors, hubclient.ground. `hubclient` is the top floor and may import every room.
ALLOWED = {"architectures": set(), "formats": set(), "cache": set(), "plugins": {"architectures", "formats", "cache"}}


def modules(folder: Path) -> list[Path]:
    return [path for path in folder.rglob("*.py") if not any(part.is_symlink() for part in (path, *path.parents))]


def imported(path: Path) -> set[str]:
    """Names of hubclient modules that a file imports when it runs, those under TYPE_CHECKING left out."""
    tree = ast.parse(path.read_text())
    typing_only = {
        id(inner)
        for node in ast.walk(tree)
        if isinstance(node, ast.If) and isinstance(node.test, ast.Name) and node.test.id == "TYPE_CHECKING"
        for inner in ast.walk(node)
    }
    found = set()
    for node in ast.walk(tree):
        if id(node) in typing_only:
            continue
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module:
            found |= {node.module} | {f"{node.module}.{alias.name}" for alias in node.names if node.module == "hubclient"}
    return {name for name in found if name.split(".")[0] == "hubclient"}


@pytest.mark.parametrize("room", ROOMS)
def test_a_room_imports_only_the_floors_below(room: str):
    allowed = {f"hubclient.{name}" for name in (room, "errors", "ground", *ALLOWED[room])}
    for path in modules(ROOT / room):
        for name in imported(path) - {"hubclient", "hubclient.__version__"}:
            assert any(name == ground or name.startswith(f"{ground}.") for ground in allowed), f"{path} imports {name}"


def test_nobody_imports_the_command_line_but_itself_and_the_entry_point():
    for path in (p for room in ("hubclient", *ROOMS) for p in modules(ROOT / room)):
        if ROOT / "hubclient" / "cli" not in path.parents and path != ROOT / "hubclient" / "__main__.py":
            assert not any(name.startswith("hubclient.cli") for name in imported(path)), path


def test_the_package_list_equals_the_folders():
    listed = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["setuptools"]
    folders = {"hubclient": ROOT / "hubclient", **{f"hubclient.{room}": ROOT / room for room in ROOMS}}
    found = set()
    for name, folder in folders.items():
        for init in modules(folder):
            if init.name == "__init__.py":
                found.add(".".join([name, *init.parent.relative_to(folder).parts]))
    assert sorted(listed["packages"]) == sorted(found)
    assert {name: ROOT / path for name, path in listed["package-dir"].items()} == folders


@pytest.mark.parametrize("room", ROOMS)
def test_a_relative_link_leads_to_each_room(room: str):
    link = ROOT / "hubclient" / room
    assert link.is_symlink() and str(link.readlink()) == f"../{room}"


def test_help_imports_nothing_heavy():
    code = (
        "import sys; sys.argv = ['hubclient', '--help']\nfrom hubclient.cli import main\ntry: main()\nexcept SystemExit: pass\n"
    )
    code += "print(sorted({name.split('.')[0] for name in sys.modules}), file=sys.stderr)"
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True)
    loaded = set(re.findall(r"'(\w+)'", done.stderr))
    assert "Commands:" in done.stdout and "hubclient" in loaded
    assert not loaded & {
        "numpy",
        "numba",
        "torch",
        "rich",
        "httpx",
        "requests",
        "urllib3",
        "aiohttp",
        "huggingface_hub",
        "tokenizers",
        "gguf",
    }


def test_family_modules_are_constants_only_and_import_nothing_heavy():
    families = [path for path in modules(ROOT / "architectures") if "\nARCHITECTURES = (" in path.read_text()]
    assert families
    for path in families:
        tree = ast.parse(path.read_text())
        defined = [node for node in ast.walk(tree) if isinstance(node, ast.FunctionDef | ast.ClassDef | ast.For | ast.Lambda)]
        assert not defined, f"{path} holds more than constants"
        assert len(path.read_text().splitlines()) <= 130, path

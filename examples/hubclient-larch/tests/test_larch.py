"""Larch passes hubclient's conformance kit, which makes small random models up from the declaration."""

from __future__ import annotations

from pathlib import Path

from hubclient_larch import ARCHITECTURES, LARCH

from hubclient.testing import ArchitectureSuite


class TestLarch(ArchitectureSuite):
    architectures = ARCHITECTURES


def test_the_declaration_claims_what_pyproject_announces() -> None:
    pyproject = (Path(__file__).parents[1] / "pyproject.toml").read_text()
    assert all(f'"{claim}" = "hubclient_larch"' in pyproject for claim in LARCH.claims())

"""The suite for pytest: a class to derive from. It needs pytest only where pytest runs it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

from hubclient.testing.checks import Case, cases

if TYPE_CHECKING:
    import pytest

    from hubclient.architectures import Architecture


class ArchitectureSuite:
    """Every check of every declaration, as one parametrised test. Derive, and say what is tested:

        class TestLarch(ArchitectureSuite):
            architectures = ARCHITECTURES

    architectures  the declarations; they need not be installed, and are read among all that are
    config         config values (dotted paths) that the kit takes instead of those that it makes up from the declaration;
                   a declaration's name leads to values for it alone: {"n_heads": 8, "larch-moe": {"n_experts": 2}}
    tokenizers     content of tokenizer files by a declaration's name, where a byte-level one will not do: {"larch": word_pieces()}
    published      files that describe real models of these architectures, see `hubclient.testing.published`
    """

    architectures: ClassVar[Sequence[Architecture]] = ()
    config: ClassVar[Mapping[str, Any]] = {}
    tokenizers: ClassVar[Mapping[str, Mapping[str, Any]]] = {}
    published: ClassVar[Sequence[Path]] = ()

    def pytest_generate_tests(self, metafunc: pytest.Metafunc) -> None:
        """One test for each check and what it is about."""
        if "conformance_case" in metafunc.fixturenames:
            found = list(cases(self.architectures, config=self.config, tokenizers=self.tokenizers, published=self.published))
            metafunc.parametrize("conformance_case", found, ids=[_identifier(case) for case in found])

    def test_conforms(self, conformance_case: Case, tmp_path: Path) -> None:
        """The declaration passes one check."""
        __tracebackhide__ = True
        conformance_case.run(tmp_path)


def _identifier(case: Case) -> str:
    return f"{case.subject}-{case.check.name}".replace(" ", "_")

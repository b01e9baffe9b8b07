"""What the checks work on: a declaration under test, and a host that serves it whether it is installed or not."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

from hubclient.errors import UnsupportedArchitecture
from hubclient.plugins import Host

if TYPE_CHECKING:
    from hubclient.architectures import Architecture
    from hubclient.testing.synthetic import Synthetic


class Bench(Host):
    """The plugins of this process, and declarations under test, which go before installed ones of the same name."""

    def __init__(self, under_test: Iterable[Architecture]) -> None:
        super().__init__()
        self._under_test = tuple(under_test)

    def architectures(self, space: str, name: str) -> tuple[Architecture, ...]:
        """As `Host.architectures`, beginning with what is under test."""
        own = tuple(item for item in self._under_test if f"{space}.{name}" in item.claims())
        if own and space == "hf":
            return own
        try:
            others = super().architectures(space, name)
        except UnsupportedArchitecture:
            if not own:
                raise
            others = ()
        return self._with_own(own, others)

    def all_architectures(self) -> tuple[Architecture, ...]:
        """As `Host.all_architectures`, beginning with what is under test."""
        return self._with_own(self._under_test, super().all_architectures())

    def _with_own(self, own: tuple[Architecture, ...], others: tuple[Architecture, ...]) -> tuple[Architecture, ...]:
        names = {item.name for item in self._under_test}
        return (*own, *(item for item in others if item.name not in names))


@dataclass(frozen=True)
class Subject:
    """A declaration under test: `space` is the layout that a check is about ("" if it is about none).

    `config` are config values by dotted path that are taken instead of those that the kit makes up, `tokenizer` the
    content of tokenizer files instead of the kit's own. `published` is a file that describes a model as its repository
    holds it.
    """

    architecture: Architecture
    host: Host
    space: str = ""
    config: Mapping[str, Any] = field(default_factory=dict)
    tokenizer: Mapping[str, Any] = field(default_factory=dict)
    published: Path | None = None

    @cached_property
    def models(self) -> tuple[Synthetic, ...]:
        """Models made up from the declaration: one with all that it may have, one with only what it must have, ..."""
        from hubclient.testing.synthetic import synthetics

        return synthetics(self.architecture, self.config)

    @cached_property
    def kept(self) -> Synthetic:
        """A made-up model with all that every format has room for."""
        from hubclient.testing.synthetic import synthetic

        return synthetic(self.architecture, self.config, "kept")

    def write(self, model: Synthetic, folder: Path) -> Path:
        """A made-up model as Transformers saves one."""
        from hubclient.testing.folders import write

        return write(model, folder, self.files)

    @property
    def files(self) -> Mapping[str, Any]:
        """The content of the tokenizer's files."""
        from hubclient.testing.folders import byte_level

        return self.tokenizer or byte_level()

    def __str__(self) -> str:
        parts = (self.architecture.name, self.space, self.published.stem if self.published else "")
        return "-".join(part for part in parts if part)

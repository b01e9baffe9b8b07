"""The one tree of errors, ground that every room stands on.

    HubclientError
    ├── UsageError (ValueError)                    2  the request itself cannot be carried out
    ├── Lossy                                      1  --strict, and something would not be carried over
    ├── VerificationFailed                         1  two checkpoints differ
    ├── Unsupported                                3  well-formed, but nobody here knows it
    │   ├── UnsupportedArchitecture
    │   ├── UnmappedTensor                            a tensor without a rule, or a rule without its tensor
    │   ├── UnknownTokenizer
    │   ├── UnsupportedEncoding
    │   └── UnsupportedFormat
    ├── DamagedInput (ValueError)                  4  broken, contradictory or hostile bytes
    ├── PluginError                                3  a plugin that was asked for cannot serve
    │   └── PluginConflict                            two plugins claim one name and nobody chose
    └── EnvironmentFault (OSError)                 5  disk, permission, memory, another process
        ├── NotEnoughSpace
        ├── OutputExists (FileExistsError)
        ├── OutputBusy                                another process is writing there
        ├── NetworkFault (ConnectionError)            the Hub cannot be reached, or what it answers is of no use
        │   └── Offline                               the network is needed, and was ruled out
        ├── AccessDenied (PermissionError)            the Hub wants a token, another token, or a licence accepted
        ├── SourceMissing (FileNotFoundError)
        └── SourceChanged                             the source is no longer what the plan was made from

The library raises these; one table in the CLI turns the class into a sentence, the next command to try, and the exit
code shown above. Fields carry the offender, so that a program need not parse the sentence.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path


class HubclientError(Exception):
    """Base of all errors that hubclient raises on purpose; `str()` is one plain sentence."""

    exit_code = 70
    hint: str | None = None

    def __init__(self, message: str, *, hint: str | None = None) -> None:
        super().__init__(message)
        self.message = message
        if hint is not None:
            self.hint = hint

    def __str__(self) -> str:
        return self.message


class UsageError(HubclientError, ValueError):
    """The request contradicts itself or the command's rules."""

    exit_code = 2


class Lossy(HubclientError):
    """Something would not be carried over and the caller asked for `strict`; `losses` lists what."""

    exit_code = 1

    def __init__(self, message: str, losses: Sequence[str] = (), *, hint: str | None = None) -> None:
        super().__init__(message, hint=hint)
        self.losses = tuple(losses)


class VerificationFailed(HubclientError):
    """Two checkpoints are not the same model."""

    exit_code = 1


class Unsupported(HubclientError):
    """A well-formed input that no architecture, format or encoding here can handle."""

    exit_code = 3


class UnsupportedArchitecture(Unsupported):
    """No installed plugin declares this architecture; `architecture` is the name that was asked for."""

    hint = "`hubclient plugins ls` lists what is installed; docs/add-an-architecture.md shows how a small package of your own adds one"

    def __init__(self, message: str, architecture: str = "", *, hint: str | None = None) -> None:
        super().__init__(message, hint=hint)
        self.architecture = architecture


class UnmappedTensor(Unsupported):
    """Tensors that the architecture's layout does not know, or that it needs and the file lacks; see `tensors`."""

    def __init__(self, message: str, tensors: Sequence[str] = (), *, hint: str | None = None) -> None:
        super().__init__(message, hint=hint)
        self.tensors = tuple(tensors)


class UnknownTokenizer(Unsupported):
    """The tokenizer, or its pre-tokenizer, is not recognised."""


class UnsupportedEncoding(Unsupported):
    """A tensor encoding that is known by name at best, but cannot be decoded or encoded here."""


class UnsupportedFormat(Unsupported):
    """No installed format recognises the path."""


class DamagedInput(HubclientError, ValueError):
    """A file that is truncated, garbled, contradictory or hostile.

    `file` is the offending file, `tensor` and `offset` (bytes from the start of the file) say where, when known.
    """

    exit_code = 4

    def __init__(
        self,
        message: str,
        *,
        file: Path | str | None = None,
        tensor: str | None = None,
        offset: int | None = None,
        hint: str | None = None,
    ) -> None:
        where = f"{file}: " if file is not None and not message.startswith(f"{file}: ") else ""
        super().__init__(where + message, hint=hint)
        self.file = Path(file) if file is not None else None
        self.tensor = tensor
        self.offset = offset


class PluginError(HubclientError):
    """A plugin that was asked for failed to import or declares something that cannot be used; `plugin` names it."""

    exit_code = 3

    def __init__(self, message: str, plugin: str = "", *, hint: str | None = None) -> None:
        super().__init__(message, hint=hint)
        self.plugin = plugin


class PluginConflict(PluginError):
    """Two plugins claim the same name and no preference settles it."""


class EnvironmentFault(HubclientError, OSError):
    """The machine, not the input: disk, permission, memory or another process; `path` says where."""

    exit_code = 5

    def __init__(self, message: str, path: Path | str | None = None, *, hint: str | None = None) -> None:
        HubclientError.__init__(self, message, hint=hint)
        self.path = Path(path) if path is not None else None


class NotEnoughSpace(EnvironmentFault):
    """The target file system has less free space than the outputs need."""


class OutputExists(EnvironmentFault, FileExistsError):
    """The output is already there and `force` was not given."""


class OutputBusy(EnvironmentFault):
    """Another process is writing this output."""


class NetworkFault(EnvironmentFault, ConnectionError):
    """The Hub cannot be reached, gave up, or answered with something that cannot be used; what had arrived is kept."""


class Offline(NetworkFault):
    """Something is needed from the Hub, and offline was asked for; `missing` names the files that are not here."""

    def __init__(self, message: str, missing: Sequence[str] = (), *, hint: str | None = None) -> None:
        super().__init__(message, hint=hint)
        self.missing = tuple(missing)


class AccessDenied(EnvironmentFault, PermissionError):
    """The Hub refuses: no token, a token that may not, or a licence that nobody has accepted yet (the hint says which)."""


class SourceMissing(EnvironmentFault, FileNotFoundError):
    """The source does not exist: no such path here, or no such repository, revision or file on the Hub."""


class SourceChanged(EnvironmentFault):
    """A source file changed between plan and execution, or between a killed run and its resumption."""

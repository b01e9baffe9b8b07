"""Who one is on the Hub: tokens checked, stored where huggingface_hub and all that use it look, and taken away again.

Two files hold tokens: HF_TOKEN_PATH the one in use, `stored_tokens` beside it all of them by name. huggingface_hub would write
both in place and close their folder to others, which is mostly HF_HOME and may be shared (issue 4234 of huggingface_hub); here
they are replaced in one step, readable by their owner alone, and the folder stays as it is.
"""

from __future__ import annotations

import configparser
import io
import os
import re
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from hubclient.errors import AccessDenied, EnvironmentFault, NetworkFault, UsageError
from hubclient.ground.atomic import replace_file
from hubclient.ground.names import shown

if TYPE_CHECKING:
    from hubclient.hub.net.session import Session

_TOKEN = re.compile(r"[\x21-\x7e]{1,4096}")
_NAMES = ("HF_TOKEN", "HUGGING_FACE_HUB_TOKEN")  # in the order in which huggingface_hub looks at them
_LIMIT = 1 << 20  # bytes of a file of tokens


@dataclass(frozen=True, slots=True)
class Account:
    """Whose token it is. `origin` says where it came from, `role` what it may do ("read", "write", "fineGrained", "" if not told).

    `shadowed`: the stored token is another one, and is not used while the environment has one.
    """

    name: str
    organisations: tuple[str, ...]
    token_name: str
    role: str
    origin: str
    endpoint: str
    shadowed: bool = False

    @property
    def namespaces(self) -> tuple[str, ...]:
        """Where repositories of one's own can be."""
        return (self.name, *self.organisations)


def whoami(session: Session) -> Account:
    """Whose token `session` has. AccessDenied without one, or with one that nobody has; NetworkFault; Offline."""
    session.need_for("whoami")
    if session.token.text is None:
        raise AccessDenied(
            f"nobody is logged in to {session.host}", hint="`hubclient login` stores a token; HF_TOKEN may hold one too"
        )
    return _account(session.get_json("/api/whoami-v2"), session)


def login(session: Session) -> Account:
    """Ask the Hub whose token `session` was given, and store it. Raises what `whoami` does, UsageError, EnvironmentFault."""
    token = checked_token(session.token.text or "")
    account = whoami(session)
    store_token(token, account.token_name or f"oauth-{account.name}")
    return replace(account, shadowed=_in_environment() not in (None, token))


def logout() -> bool:
    """Take away the stored token that is in use; False if there is none. Other stored ones stay. EnvironmentFault."""
    token = stored_token()
    if token is None:
        return False
    _, tokens_path = _paths()
    config = _read_tokens(tokens_path)
    for name in [name for name in config.sections() if config.get(name, "hf_token", fallback="") == token]:
        config.remove_section(name)
    if tokens_path.exists():
        _write_tokens(tokens_path, config)
    path, _ = _paths()
    try:
        path.unlink(missing_ok=True)
    except OSError as error:
        raise EnvironmentFault(f"{path}: cannot be removed ({error.strerror})", path) from error
    return True


def checked_token(text: str) -> str:
    """A token as it was typed, without what surrounds it. UsageError, which does not repeat it."""
    token = text.strip()
    if not _TOKEN.fullmatch(token):
        why = "holds blanks or characters that no token has" if token else "is empty"
        raise UsageError(f"what was given as the token {why}")
    if token.startswith("api_org"):
        raise UsageError("this is an organisation's token; a person's own is needed")
    return token


def store_token(token: str, name: str) -> None:
    """Make it the token in use, and keep it under `name`. EnvironmentFault."""
    path, tokens_path = _paths()
    config = _read_tokens(tokens_path)
    section = _section(name)
    if config.has_section(section):
        config.remove_section(section)
    config.add_section(section)
    config.set(section, "hf_token", token)
    _write_tokens(tokens_path, config)
    _write(path, token)


def stored_token() -> str | None:
    """The stored token that is in use, whatever the environment says; None if there is none. EnvironmentFault."""
    path, _ = _paths()
    return (_read(path).strip() or None) if path.exists() else None


def _account(told: Any, session: Session) -> Account:
    values: Mapping[str, Any] = told if isinstance(told, dict) else {}
    name = values.get("name")
    if not isinstance(name, str) or not name:
        raise NetworkFault(f"{session.host} does not say whose token it is, but {shown(told)}")
    own = _mapping(_mapping(values.get("auth")).get("accessToken"))
    listed = values.get("orgs") if isinstance(values.get("orgs"), list) else []
    names = (_mapping(item).get("name") for item in listed or ())
    stored = None
    with suppress(EnvironmentFault):  # another user's, in a shared HF_HOME
        stored = stored_token()
    return Account(
        name,
        tuple(item for item in names if isinstance(item, str)),
        _text(own.get("displayName")),
        _text(own.get("role")),
        session.token.source,
        session.endpoint,
        _in_environment() is not None and stored not in (None, session.token.text),
    )


def environment_token() -> str | None:
    """The variable whose token counts before the stored one; None if none is set."""
    return next((name for name in _NAMES if os.environ.get(name, "").strip()), None)


def _in_environment() -> str | None:
    return next((text for name in _NAMES if (text := os.environ.get(name, "").strip())), None)


def _paths() -> tuple[Path, Path]:
    from huggingface_hub import constants

    return Path(constants.HF_TOKEN_PATH), Path(constants.HF_STORED_TOKENS_PATH)


def _section(name: str) -> str:
    """A name as the header of a section can be; the Hub lets people call tokens as they like."""
    text = "".join(char if char.isprintable() and char not in "[]" else "_" for char in name).strip()[:200]
    return "token" if text in ("", configparser.DEFAULTSECT) else text


def _read_tokens(path: Path) -> configparser.ConfigParser:
    """The file of all tokens. EnvironmentFault if it is broken: to write it anew would lose what it holds."""
    config = configparser.ConfigParser(interpolation=None)
    if path.exists():
        try:
            config.read_string(_read(path))
        except configparser.Error as error:
            raise EnvironmentFault(
                f"{path}: is no list of tokens, as huggingface_hub keeps it", path, hint="move it away"
            ) from error
    return config


def _write_tokens(path: Path, config: configparser.ConfigParser) -> None:
    text = io.StringIO()
    config.write(text)
    _write(path, text.getvalue())


def _read(path: Path) -> str:
    try:
        with open(path, "rb") as file:
            return file.read(_LIMIT).decode()
    except OSError as error:
        raise EnvironmentFault(f"{path}: cannot be read ({error.strerror})", path) from error
    except UnicodeDecodeError as error:
        raise EnvironmentFault(f"{path}: is not UTF-8", path, hint="move it away") from error


def _write(path: Path, text: str) -> None:
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        replace_file(Path(os.path.realpath(path)), text.encode(), mode=0o600)
    except OSError as error:
        raise EnvironmentFault(f"{path}: the token cannot be stored ({error.strerror})", path) from error


def _mapping(value: Any) -> Mapping[str, Any]:
    return value if isinstance(value, dict) else {}


def _text(value: Any) -> str:
    return value if isinstance(value, str) else ""

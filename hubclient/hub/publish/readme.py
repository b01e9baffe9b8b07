"""What becomes of README.md in a push.

There is one in the repository: it stays, but for our section, and the folder's is not sent. There is one in the folder alone:
it is sent as it is. There is none: one is made. Who pushes a file of that name, alone, replaces what is there.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any

from hubclient.cache.digests import Digest, new_hasher
from hubclient.cache.layout import RepoId
from hubclient.errors import AccessDenied, NetworkFault, SourceMissing
from hubclient.hub.net.failures import About
from hubclient.hub.publish.card import LIMIT, NAME, Row, licence_of, new_card, with_section
from hubclient.hub.publish.parcel import Item, Parcel, read
from hubclient.hub.publish.provenance import Contents
from hubclient.hub.resolve import api_path

if TYPE_CHECKING:
    from hubclient.hub.net.session import Session


@dataclass(frozen=True, slots=True)
class Telling:
    """What a card may say: repositories that those who see the card see too, and the licence."""

    seen: frozenset[RepoId]
    bases: tuple[RepoId, ...]
    licence: Mapping[str, Any]
    notes: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Carded:
    """What is sent: the files, and the card's bytes if one is written."""

    parcel: Parcel
    card: bytes | None = None
    notes: tuple[str, ...] = field(default=())

    @property
    def names(self) -> tuple[str, ...]:
        """Everything that is sent."""
        return (*(item.name for item in self.parcel.items), *([NAME] if self.card is not None else []))


def telling(session: Session, contents: Contents, private: bool) -> Telling:
    """Ask the Hub about the repositories that the files may have been made from: only what it shows is named.

    What notes say counts before what headers say. For a public card, a private repository is not named.
    """
    noted = tuple(dict.fromkeys(origin.repo for origin in contents.origins.values()))
    shown, notes, licence = [], [], dict(contents.licence)
    for repo in noted or contents.stated[:1]:
        told = _ask(session, repo)
        if told is None or (told.get("private") is True and not private):
            if repo in noted:
                notes.append(f"the card does not name {repo}, which not everybody can see")
            continue
        shown.append(repo)
        head = told.get("cardData")
        licence = licence_of(licence) or licence_of(head if isinstance(head, dict) else {})
    return Telling(frozenset(shown), tuple(shown), licence_of(licence), tuple(notes))


def carded(
    session: Session,
    parcel: Parcel,
    contents: Contents,
    sha256: Mapping[str, str],
    repo: RepoId,
    head: str | None,
    present: frozenset[str],
    told: Telling | None,
) -> Carded:
    """The files with a card, by the rules above; `head` is the commit that the card is looked up in, `told` None writes none."""
    own = next((item for item in parcel.items if item.name == NAME), None)
    if own is not None and not parcel.path.is_dir():
        return Carded(parcel)
    there = _fetched(session, repo, head) if head is not None and (told or own) else None
    rows = tuple(_rows(parcel, contents, sha256, told)) if told else ()
    notes = told.notes if told and rows else ()
    if there is not None:
        kept, said = _without(parcel, own, there)
        card, more = _renewed(there, rows, session.endpoint, present)
        return Carded(kept, card, (*notes, *said, *more))
    if own is not None or told is None or not rows:
        return Carded(parcel)
    text = new_card(repo, contents, rows, told.licence, [base for base in told.bases if base != repo], session.endpoint)
    return Carded(parcel, text.encode(), notes)


def _rows(parcel: Parcel, contents: Contents, sha256: Mapping[str, str], told: Telling) -> Iterator[Row]:
    for item in parcel.items:
        if item.name in contents.kinds:
            format_, type_ = contents.kinds[item.name]
            origin = contents.origins.get(item.name)
            seen = origin if origin is not None and origin.repo in told.seen else None
            yield Row(item.name, format_, type_ or (origin.type if origin else ""), item.size, sha256[item.name], seen)


def _without(parcel: Parcel, own: Item | None, there: bytes) -> tuple[Parcel, tuple[str, ...]]:
    """The parcel without the folder's card."""
    if own is None:
        return parcel, ()
    kept = replace(parcel, items=tuple(item for item in parcel.items if item is not own))
    if own.size == len(there) and read(own) == there:
        return kept, ()
    return kept, (f"the repository's {NAME} was kept; `hubclient push {own.path} ...` replaces it",)


def _renewed(there: bytes, rows: tuple[Row, ...], endpoint: str, present: frozenset[str]) -> tuple[bytes | None, tuple[str, ...]]:
    if not rows:
        return None, ()
    try:
        text = there.decode() if len(there) <= LIMIT else None
    except UnicodeDecodeError:
        text = None
    if text is None:
        return None, (f"the repository's {NAME} is no text that could be added to, and stays as it is",)
    made = with_section(text, rows, endpoint, present).encode()
    return (None if made == there else made), ()


def _ask(session: Session, repo: RepoId) -> dict[str, Any] | None:
    """What the Hub says of a repository, None if it shows none."""
    try:
        told = session.get_json(api_path(repo), about=About(repo))
    except (SourceMissing, AccessDenied):
        return None
    return told if isinstance(told, dict) else None


def _fetched(session: Session, repo: RepoId, commit: str) -> bytes | None:
    """The card at a commit, None if there is none; whole, for what is cut off would be lost. NetworkFault."""
    about = About(repo, commit, NAME)
    data = bytearray()
    try:
        with session.open(session.resolve_url(repo, commit, NAME), about) as answer:
            for piece in answer.response.iter_bytes():
                data += piece
                if len(data) > LIMIT:
                    return bytes(data)
            digest = Digest.of_name(answer.told.get("x-linked-etag", answer.told.get("etag", "")).removeprefix("W/").strip('"'))
    except SourceMissing:
        return None
    if digest is not None:
        hasher = new_hasher(digest.algorithm, len(data))
        hasher.update(data)
        if hasher.hexdigest() != digest.hex:
            raise NetworkFault(f"{about}: {session.host} sends other bytes than it says")
    return bytes(data)

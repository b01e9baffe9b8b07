"""The model card that a push writes: a head that the Hub reads, and a section of our own that lists the weights.

    ---                                  YAML: licence, library, base model, tags
    # name
    <!-- hubclient: files -->            between these two lines the text is ours, and made anew by each push
    | file | format | type | bytes | SHA-256 | made from |
    <!-- hubclient: end -->

In a card that is there already nothing but that section is ever changed. Whatever comes from a file or a name is put where
Markdown and HTML have no meaning: in code spans, or as character references. The same files give the same card.
"""

from __future__ import annotations

import html
import re
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, NamedTuple

from hubclient.cache.layout import RepoId
from hubclient.hub.publish.provenance import Contents, Origin

NAME = "README.md"
BEGIN, END = "<!-- hubclient: files -->", "<!-- hubclient: end -->"
LIMIT = 1 << 20  # bytes of a card that is looked into
_HEADINGS = "| file | format | type | bytes | SHA-256 | made from |\n| --- | --- | --- | ---: | --- | --- |\n"
_PLAIN = re.compile(r"[\w .,=+@()#~^%-]+(?:/[\w .,=+@()#~^%-]+)*")
_ROW = re.compile(r"\| (?P<name>`[^`|]+`|[^`|]+) \|.*\|")
_SECTION = re.compile(f"{BEGIN}(?:(?!{BEGIN}|{END}).)*{END}", re.DOTALL)
_ID = re.compile(r"[a-z0-9][a-z0-9.+_-]{0,63}")


class Row(NamedTuple):
    """A file of the table; `sha256` in hexadecimal digits."""

    name: str
    format: str
    type: str
    size: int
    sha256: str
    origin: Origin | None = None


def new_card(
    repo: RepoId, contents: Contents, rows: Sequence[Row], licence: Mapping[str, Any], bases: Sequence[RepoId], endpoint: str
) -> str:
    """A whole card. `licence` holds its fields of the head; `bases` are the repositories that the weights were made from."""
    title = repo.name.rpartition("/")[2].replace("_", "\\_")
    return f"---\n{_head(contents, licence, bases)}---\n\n# {title}\n\n{section(rows, endpoint)}\n"


def with_section(card: str, rows: Sequence[Row], endpoint: str, present: Iterable[str] = ()) -> str:
    """A card that is there already, with our section made anew, or added at the end.

    Rows of files that are in the repository (`present`) and are not among `rows` stay.
    """
    begin, end = _bounds(card)
    old = {} if begin < 0 else _rows(card[begin:end])
    gone = {row.name for row in rows}
    made = section(rows, endpoint, {name: old[name] for name in old.keys() & present if name not in gone})
    if begin >= 0:
        return card[:begin] + made + card[end:]
    between = "" if not card else "\n" if card.endswith("\n") else "\n\n"
    return card + between + made + "\n"


def section(rows: Sequence[Row], endpoint: str, kept: Mapping[str, str] | None = None) -> str:
    """Our part of a card; `kept` are lines of the table that stay as they are, by file name."""
    from hubclient import __version__

    lines = {**(kept or {}), **{row.name: _line(row, endpoint) for row in rows}}
    table = "".join(lines[name] + "\n" for name in sorted(lines))
    return f"{BEGIN}\n## Files\n\n{_HEADINGS}{table}\nWritten by hubclient {__version__}.\n{END}"


def licence_of(values: Mapping[str, Any]) -> dict[str, Any]:
    """What a card can say of a licence: an identifier of the Hub's, or "other" with a name and a link."""
    stated = values.get("license")
    listed = [stated] if isinstance(stated, str) else stated if isinstance(stated, list) else []
    ids = [text.lower() for text in listed if isinstance(text, str) and _ID.fullmatch(text.lower())]
    if not ids:
        return {}
    more = {key: values[key] for key in ("license_name", "license_link") if _is_line(values.get(key))}
    return {"license": ids[0] if len(ids) == 1 else ids, **(more if "other" in ids else {})}


def in_code(text: str) -> str:
    """Text that is shown as it is, whatever it holds: in a code span, else as character references."""
    if _PLAIN.fullmatch(text) and text.isprintable() and text == text.strip():
        return f"`{text}`"
    return "".join(char if char.isascii() and char.isalnum() else f"&#{ord(char)};" for char in text)


def _head(contents: Contents, licence: Mapping[str, Any], bases: Sequence[RepoId]) -> str:
    from huggingface_hub import ModelCardData

    names = [base.name for base in bases]
    values = {
        **licence,
        **({"library_name": library} if (library := _library(contents)) else {}),
        **({"base_model": names[0] if len(names) == 1 else names} if names else {}),
        **({"base_model_relation": "quantized"} if names and set(contents.formats) & {"gguf", "mlx"} else {}),
        "tags": [*contents.formats, *filter(None, [contents.architecture])],
    }
    return str(ModelCardData(**{key: value for key, value in values.items() if value}).to_yaml()) + "\n"


def _library(contents: Contents) -> str:
    """What loads it, by the names that the Hub knows."""
    formats = contents.formats
    if "safetensors" in formats:
        return "transformers" if contents.transformers else ""
    return next((name for name in ("mlx", "gguf") if name in formats), "")


def _line(row: Row, endpoint: str) -> str:
    cells = (in_code(row.name), row.format, in_code(row.type) if row.type else "", f"{row.size:,}", f"`{row.sha256}`")
    return f"| {' | '.join(cells)} | {_source(row.origin, endpoint)} |"


def _source(origin: Origin | None, endpoint: str) -> str:
    if origin is None:
        return ""
    page = f"{endpoint}/{origin.repo.name}"
    commit = origin.commit
    return f"[`{origin.repo.name}@{commit[:12]}`]({page}/tree/{commit})" if commit else f"[`{origin.repo.name}`]({page})"


def _bounds(card: str) -> tuple[int, int]:
    """Where our section begins and ends, (-1, -1) if there is none; a mark that lost its other one is none."""
    found = _SECTION.search(card)
    return found.span() if found else (-1, -1)


def _rows(text: str) -> dict[str, str]:
    """The table's lines by file name; its headings are none of them."""
    found = (match for line in text.splitlines() if (match := _ROW.fullmatch(line)))
    return {html.unescape(match["name"].strip("`")): match[0] for match in found if match["name"] not in ("file", "---")}


def _is_line(value: Any) -> bool:
    return isinstance(value, str) and 0 < len(value) <= 256 and value.isprintable()

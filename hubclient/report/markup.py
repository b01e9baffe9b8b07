"""HTML and SVG from Python values: whatever is not markup already is text, and escaped; nothing else makes markup."""

from __future__ import annotations

from html import escape


class Markup(str):
    """Text that is HTML or SVG, and goes into a page as it is."""

    __slots__ = ()


def tag(name: str, *children: str, **attributes: str | float | None) -> Markup:
    """An element; attributes that are None are left out, `class_` is spelled class and `data_v` data-v."""
    spelled = (
        f' {key.rstrip("_").replace("_", "-")}="{text(_plain(value))}"' for key, value in attributes.items() if value is not None
    )
    return Markup(f"<{name}{''.join(spelled)}>{group(*children)}</{name}>")


def group(*children: str) -> Markup:
    """Several after each other."""
    return Markup("".join(child if isinstance(child, Markup) else text(child) for child in children))


def text(value: str) -> Markup:
    """Any text, on one line: of characters that nobody sees, or that turn the direction of others, the numbers are shown."""
    shown = value if value.isprintable() else "".join(char if char.isprintable() else ascii(char)[1:-1] for char in value)
    return Markup(escape(shown))


def _plain(value: str | float) -> str:
    return f"{value:.6g}" if isinstance(value, float) else str(value)

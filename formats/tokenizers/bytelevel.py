"""The byte alphabet of GPT-2: every byte as a printable character, so that byte-level vocabularies are plain text."""

from __future__ import annotations


def _alphabet() -> dict[int, str]:
    printable = [*range(0x21, 0x7F), *range(0xA1, 0xAD), *range(0xAE, 0x100)]
    shown = {byte: chr(byte) for byte in printable}
    others = (byte for byte in range(256) if byte not in shown)
    return shown | {byte: chr(256 + place) for place, byte in enumerate(others)}


BYTE_TO_CHAR = _alphabet()
CHAR_TO_BYTE = {char: byte for byte, char in BYTE_TO_CHAR.items()}
_ENCODE = str.maketrans({chr(byte): char for byte, char in BYTE_TO_CHAR.items()})


def encode_bytes(data: bytes) -> str:
    """`data` in the byte alphabet."""
    return data.decode("latin-1").translate(_ENCODE)


def decode_text(text: str) -> str:
    """`text` out of the byte alphabet; unchanged if a character is not of it, or the bytes are not UTF-8."""
    try:
        return bytes(CHAR_TO_BYTE[char] for char in text).decode()
    except (KeyError, UnicodeDecodeError):
        return text

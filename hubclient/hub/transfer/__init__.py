"""Bytes from the Hub to a blob: ranged, resumed, hashed before they get their name."""

"""Strict JSON from source files: configs, indices and tokenizer files, as `hubclient.ground.strictjson` reads text."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from hubclient.formats.sourcefile import read_source
from hubclient.ground.strictjson import parse_json, parse_object

CONFIG_LIMIT = 64 << 20


def read_json(path: Path, *, limit: int = CONFIG_LIMIT, allow_nonfinite: bool = False) -> Any:
    """The JSON value in the file at `path`, of at most `limit` bytes.

    `allow_nonfinite` admits NaN and Infinity, which Python's writer emits and some published configs hold. Raises
    DamagedInput for what is not strict JSON, SourceMissing or EnvironmentFault where there is nothing to read.
    """
    return parse_json(read_source(path, limit)[0], path, allow_nonfinite=allow_nonfinite)


def read_object(path: Path, *, limit: int = CONFIG_LIMIT, allow_nonfinite: bool = False) -> dict[str, Any]:
    """Like `read_json`, for a file whose top level must be an object."""
    return parse_object(read_source(path, limit)[0], path, allow_nonfinite=allow_nonfinite)

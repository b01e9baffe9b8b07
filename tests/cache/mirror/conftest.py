"""A hub for each test, and a client that shows every header."""

from __future__ import annotations

import http.client
from collections.abc import Iterator
from dataclasses import dataclass
from email.message import Message

import pytest
from hubserver import HubServer


@dataclass
class Answer:
    """What came back; `whole` is false where the connection ended before all that was announced had come."""

    status: int
    headers: Message
    body: bytes
    whole: bool = True


def ask(endpoint: str | None, path: str, method: str = "GET", token: str | None = None, **headers: str) -> Answer:
    """One request on a connection of its own; underscores in names of headers stand for dashes."""
    assert endpoint
    connection = http.client.HTTPConnection(endpoint.removeprefix("http://"), timeout=30)
    fields = {name.replace("_", "-"): value for name, value in headers.items()}
    try:
        connection.request(method, path, headers=fields | ({"Authorization": f"Bearer {token}"} if token else {}))
        response = connection.getresponse()
        try:
            return Answer(response.status, response.headers, response.read())
        except http.client.IncompleteRead as short:
            return Answer(response.status, response.headers, short.partial, whole=False)
    finally:
        connection.close()


@pytest.fixture(name="ask")
def asking():
    return ask


@pytest.fixture
def hub() -> Iterator[HubServer]:
    with HubServer() as running:
        yield running

"""What stands before MQTT and is read from anybody: a proxy's header, and the upgrade and frames of WebSocket.

`fuzz_front` takes its first byte as the choice between them, the second as how the rest is cut. What must hold: an answer
or the one exception that is promised; the same plain bytes and the same end however the stream was cut; bounded work in
a call, and bounded memory for what is not whole.
"""

from __future__ import annotations

from typing import Final

from edge_broker.net.pipes import PipeError
from edge_broker.net.proxy_header import ProxyHeader, ProxyHeaderError, read_proxy_header
from edge_broker.net.websocket import WebSocketPipe
from tests.fuzz.cuts import chunks_of
from tests.net.frames import upgrade

MAX_PACKET_BYTES: Final = 200
LONGEST_STREAM_BYTES: Final = 4096
LONGEST_PROXY_HEADER_BYTES: Final = 552
UPGRADE: Final = upgrade()

PROXY, WEBSOCKET, UPGRADED = range(3)
"""The choices: a proxy's header, WebSocket from its first byte on, WebSocket behind a request that is right."""


def fuzz_front(data: bytes) -> None:
    """One stream; AssertionError where a promise is broken, any other exception as it is."""
    if len(data) < 2:
        return
    choice, stream = data[0] % 3, data[2 : 2 + LONGEST_STREAM_BYTES]
    if choice == PROXY:
        _check_proxy(stream, chunks_of(stream, data[1]))
        return
    before = UPGRADE if choice == UPGRADED else b""
    whole = _websocket([before + stream])
    for chunks in ([before, *chunks_of(stream, data[1])], chunks_of(before + stream, data[1])):
        found = _websocket(chunks)
        assert found == whole, f"{chunks} are {found}, together they are {whole}"


def _check_proxy(stream: bytes, chunks: list[bytes]) -> None:
    """However much of the header has come, nothing is said of it that more of it would take back."""
    whole = _proxy_header(stream)
    received = b""
    for chunk in chunks:
        received += chunk
        found = _proxy_header(received)
        if found is None:
            assert len(received) < LONGEST_PROXY_HEADER_BYTES, "it waits for ever"
        else:
            assert found == whole, f"{received!r} is {found}, with more behind it {whole}"
            return
    assert whole is None


def _proxy_header(data: bytes) -> ProxyHeader | str | None:
    try:
        header = read_proxy_header(data)
    except ProxyHeaderError:
        return "refused"
    assert header is None or 0 < header.length <= len(data)
    return header


def _websocket(chunks: list[bytes]) -> tuple[bytes, bool, bool, bool]:
    """The plain bytes; whether it was established, refused, and ended in due form."""
    pipe = WebSocketPipe(MAX_PACKET_BYTES, ("/mqtt",))
    plain = b""
    refused = False
    try:
        for chunk in chunks:
            more = True
            while more:
                plain += pipe.receive(chunk)
                pipe.take_output()
                chunk = b""
                more = pipe.has_more
            if pipe.ended:
                break
            if pipe.established:
                pipe.send(b"an answer")
                pipe.take_output()
    except PipeError:
        refused = True
    pipe.take_output()
    pipe.shut()
    pipe.send(b"too late")
    pipe.take_output()
    return plain, pipe.established, refused, pipe.ended

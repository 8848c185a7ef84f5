"""WebSocketPipe in memory: the upgrade and what is no upgrade, frames in any pieces, and every way it ends."""

from __future__ import annotations

import re
import tracemalloc
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from websockets.client import ClientProtocol
from websockets.frames import Frame
from websockets.uri import parse_uri

from edge_broker.net.pipes import LayeredPipe, PipeError
from edge_broker.net.tls import TlsPipe, client_context, server_context
from edge_broker.net.websocket import WebSocketPipe
from tests.net.frames import (
    ACCEPT,
    BINARY,
    CLOSE,
    CONTINUATION,
    PING,
    PONG,
    TEXT,
    ServerFrames,
    frame,
    upgrade,
)

LIMIT = 1000
SLACK = 64 << 10


def new_pipe(*, path: str = "/mqtt", origins: tuple[str, ...] = ()) -> WebSocketPipe:
    return WebSocketPipe(LIMIT, (path,), origins)


def open_pipe() -> WebSocketPipe:
    pipe = new_pipe()
    assert pipe.receive(upgrade()) == b""
    assert pipe.take_output().startswith(b"HTTP/1.1 101 ")
    return pipe


def drain(pipe: WebSocketPipe, data: bytes = b"") -> bytes:
    """All the plain bytes, turn by turn."""
    plain = pipe.receive(data)
    while pipe.has_more:
        plain += pipe.receive(b"")
    return plain


def refused(pipe: WebSocketPipe, data: bytes) -> tuple[bytes, str]:
    """The answer to what is refused, and the reason for the log."""
    with pytest.raises(PipeError) as raised:
        drain(pipe, data)
    assert raised.value.counter == "websocket"
    assert not pipe.ended
    return pipe.take_output(), str(raised.value)


# ---- the upgrade


def test_the_upgrade() -> None:
    pipe = new_pipe()
    assert not pipe.established
    pipe.receive(upgrade())
    answer = pipe.take_output().decode()
    assert f"\r\nSec-WebSocket-Accept: {ACCEPT}\r\n" in answer
    assert "\r\nSec-WebSocket-Protocol: mqtt\r\n" in answer
    assert answer.endswith("\r\n\r\n")
    assert pipe.established


@pytest.mark.parametrize("piece", [1, 3, 100])
def test_the_upgrade_in_pieces_with_the_first_frame_behind_it(piece: int) -> None:
    pipe = new_pipe()
    data, plain = upgrade() + frame(b"plain"), b""
    for at in range(0, len(data), piece):
        plain += pipe.receive(data[at : at + piece])
    assert plain == b"plain"
    assert pipe.take_output().startswith(b"HTTP/1.1 101 ")


@pytest.mark.parametrize(
    ("offered", "chosen"),
    [("mqtt", "mqtt"), ("mqttv3.1", "mqttv3.1"), ("mqttv3.1, mqtt", "mqtt"), ("other, mqtt", "mqtt")],
)
def test_the_subprotocol(offered: str, chosen: str) -> None:
    """[MQTT-6.0.0-3, -4]"""
    pipe = new_pipe()
    pipe.receive(upgrade(Sec_WebSocket_Protocol=offered))
    assert f"\r\nSec-WebSocket-Protocol: {chosen}\r\n" in pipe.take_output().decode()


def test_nothing_is_compressed() -> None:
    pipe = new_pipe()
    pipe.receive(upgrade(Sec_WebSocket_Extensions="permessage-deflate; client_max_window_bits"))
    assert "Extensions" not in pipe.take_output().decode()
    answer, _ = refused(pipe, frame(b"x", reserved=4))
    assert code_of(answer) == 1002


@pytest.mark.parametrize("path", ["/mqtt", "/mqtt/", "/mqtt?token=x"])
def test_the_path(path: str) -> None:
    pipe = new_pipe()
    pipe.receive(upgrade(path))
    assert pipe.established


def test_the_root_as_a_path() -> None:
    pipe = new_pipe(path="/")
    pipe.receive(upgrade("/"))
    assert pipe.established


@pytest.mark.parametrize(
    ("request_bytes", "status", "text"),
    [
        (b"GET / HTTP/1.1\r\nHost: x\r\n\r\n", 426, "You need a WebSocket client"),
        (b"GET /mqtt HTTP/1.1\r\nHost: x\r\n\r\nGET / HTTP/1.1\r\n\r\n", 426, "WebSocket"),
        (b"GET /mqtt HTTP/1.0\r\n\r\n", "400|505", "MQTT is here over WebSocket|HTTP"),
        (b"POST /mqtt HTTP/1.1\r\nContent-Length: 1\r\n\r\nx", 400, "MQTT is here over WebSocket"),
        (b"nonsense\r\n\r\n", 400, "MQTT is here over WebSocket"),
        (b"GET /mqtt HTTP/1.1\r\nno colon\r\n\r\n", 400, "MQTT is here over WebSocket"),
        (upgrade("/elsewhere"), 404, "MQTT is at /mqtt."),
        (upgrade("/mqttx"), 404, "MQTT is at /mqtt."),
        (upgrade(leave_out="Sec-WebSocket-Protocol"), 400, "subprotocol"),
        (upgrade(Sec_WebSocket_Protocol="wamp"), 400, "subprotocol"),
        (upgrade(leave_out="Sec-WebSocket-Key"), 400, "Sec-WebSocket-Key"),
        (upgrade(Sec_WebSocket_Version="8"), 400, "Sec-WebSocket-Version"),
        (upgrade() [:-2] + b"X: " + b"x" * 8190 + b"\r\n\r\n", "400|431", "over WebSocket|expected no more than"),
        (b"GET /mqtt HTTP/1.1\r\n" + b"X: y\r\n" * 4000, 431, "larger than 16384 bytes"),
        (upgrade(Sec_WebSocket_Version="\xff"), 400, "not ASCII|Sec-WebSocket-Version"),
        (b"A" * 20_000, 431, "larger than 16384 bytes"),
    ],
)  # fmt: skip
def test_what_is_no_upgrade_gets_a_readable_answer(
    request_bytes: bytes, status: int | str, text: str
) -> None:
    """Several statuses and texts where versions of the library differ."""
    pipe = new_pipe()
    answer, reason = refused(pipe, request_bytes)
    head, _, body = answer.decode().partition("\r\n\r\n")
    assert re.match(rf"HTTP/1\.1 ({status}) ", head)
    assert "\r\nConnection: close" in head
    assert int(re.findall(r"Content-Length: (\d+)", head)[0]) == len(body.encode())
    assert re.search(text, body)
    assert re.search(f"HTTP ({status})", reason)
    assert not pipe.established


def test_what_is_no_ascii_and_concerns_nobody_does_no_harm() -> None:
    pipe = new_pipe()
    pipe.receive(upgrade(Cookie="name=\xfc"))
    assert pipe.established


def test_the_log_gets_no_more_than_a_line_of_what_was_sent() -> None:
    _, reason = refused(new_pipe(origins=("https://a.example",)), upgrade(Origin="https://" + "x" * 5000))
    assert len(reason) < 300


@pytest.mark.parametrize("data", [b"\x10\x10\x00\x04MQTT", b"\x16\x03\x01", b"\r\n\r\n"])
def test_what_is_no_http_at_all_ends_at_once(data: bytes) -> None:
    answer, reason = refused(new_pipe(), data)
    assert answer == b""
    assert "no HTTP request" in reason


def test_a_request_without_an_end_is_bounded_byte_by_byte() -> None:
    pipe = new_pipe()
    for _ in range(16_383):
        assert pipe.receive(b"A") == b""
    with pytest.raises(PipeError, match="HTTP 431"):
        pipe.receive(b"A")


@pytest.mark.parametrize(
    ("origins", "sent", "status"),
    [
        ((), "https://anywhere.example", 101),
        (("https://home.example",), "https://home.example", 101),
        (("https://home.example",), "https://elsewhere.example", 403),
        (("https://home.example",), None, 101),
        (("https://home.example",), "null", 403),
    ],
)
def test_origins(origins: tuple[str, ...], sent: str | None, status: int) -> None:
    pipe = new_pipe(origins=origins)
    request = upgrade() if sent is None else upgrade(Origin=sent)
    if status == 101:
        pipe.receive(request)
        assert pipe.established
    else:
        answer, _ = refused(pipe, request)
        assert answer.startswith(b"HTTP/1.1 %d " % status)


# ---- frames


@pytest.mark.parametrize("piece", [1, 2, 5, 64, 4096])
def test_frames_split_anywhere(piece: int) -> None:
    """Frames of every length form, messages of several frames, a ping in the middle of one. [MQTT-6.0.0-2]"""
    pipe = open_pipe()
    parts = [b"", b"a", b"b" * 125, b"c" * 126, b"d" * 3000, b"e" * 65_000]
    data = b"".join(frame(part) for part in parts)
    data += frame(b"f1", fin=False) + frame(b"ping", PING) + frame(b"f2", CONTINUATION, fin=False)
    data += frame(b"", CONTINUATION, fin=False) + frame(b"f3", CONTINUATION)
    plain = b"".join(drain(pipe, data[at : at + piece]) for at in range(0, len(data), piece))
    assert plain == b"".join(parts) + b"f1f2f3"
    assert ServerFrames().take(pipe.take_output()) == [(PONG, b"ping")]


def test_what_goes_out() -> None:
    """[MQTT-6.0.0-1] and no frame so large that a client would refuse it."""
    pipe = open_pipe()
    pipe.send(b"answer")
    assert ServerFrames().take(pipe.take_output()) == [(BINARY, b"answer")]
    data = bytes(range(256)) * 1000
    pipe.send(data)
    frames = ServerFrames().take(pipe.take_output())
    assert [len(payload) for _, payload in frames] == [65536, 65536, 65536, 59392]
    assert b"".join(payload for _, payload in frames) == data


def test_a_flood_of_tiny_frames_takes_turns() -> None:
    pipe = open_pipe()
    count = 20_000
    turns = [pipe.receive(frame(b"x") * count)]
    while pipe.has_more:
        turns.append(pipe.receive(b""))
    assert sum(map(len, turns)) == count
    assert max(map(len, turns)) < 500
    assert not pipe.mid_frame


def test_part_of_a_frame_is_a_sign_of_life() -> None:
    pipe = open_pipe()
    data = frame(b"x" * 5000)
    assert pipe.receive(data[:4000]) == b""
    assert pipe.mid_frame
    assert pipe.receive(data[4000:]) == b"x" * 5000
    assert not pipe.mid_frame
    pipe.receive(frame(b"", PING))
    assert not pipe.mid_frame, "a ping is no MQTT"


def test_a_frame_of_the_largest_packet_is_taken_and_a_larger_one_not() -> None:
    pipe = open_pipe()
    assert len(drain(pipe, frame(b"x" * (LIMIT + SLACK)))) == LIMIT + SLACK
    answer, reason = refused(pipe, frame(b"x" * (LIMIT + SLACK + 1))[:20])
    assert code_of(answer) == 1009
    assert "frame" in reason


def test_a_message_of_many_frames_is_bounded_too() -> None:
    pipe = open_pipe()
    assert drain(pipe, frame(b"x" * 40_000, fin=False)) == b"x" * 40_000
    answer, _ = refused(pipe, frame(b"x" * 40_000, CONTINUATION, fin=False))
    assert code_of(answer) == 1009


def test_a_huge_frame_that_never_comes_costs_nothing() -> None:
    pipe = open_pipe()
    tracemalloc.start()
    refused(pipe, b"\x82\xff" + (1 << 62).to_bytes(8, "big") + b"mask")
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert peak < 1 << 20


# ---- the end


def code_of(answer: bytes) -> int:
    """Of the close frame."""
    ((opcode, payload),) = ServerFrames().take(answer)
    assert opcode == CLOSE
    return int.from_bytes(payload[:2], "big")


@pytest.mark.parametrize(
    ("data", "code"),
    [
        (frame(b"text", TEXT), 1003),  # [MQTT-6.0.0-1]
        (frame(b"te", TEXT, fin=False), 1003),
        (frame(b"x", mask=False), 1002),
        (frame(b"x", CONTINUATION), 1002),
        (frame(b"x", 3), 1002),
        (frame(b"x", 11), 1002),
        (frame(b"x" * 126, PING), 1002),
        (frame(b"x", PING, fin=False), 1002),
        (frame(b"x", reserved=1), 1002),
        (frame(b"a", fin=False) + frame(b"b"), 1002),
        (frame(b"\x03", CLOSE), 1002),
        (frame(b"\x00\x05", CLOSE), 1002),
        (frame(b"\x03\xe8\xff", CLOSE), 1007),
    ],
)
def test_a_frame_that_cannot_be(data: bytes, code: int) -> None:
    pipe = open_pipe()
    with pytest.raises(PipeError):
        drain(pipe, data)
    assert code_of(pipe.take_output()) == code
    pipe.send(b"nothing more")
    pipe.shut()
    assert pipe.take_output() == b""
    assert not pipe.lingers


def test_what_came_before_a_mistake_counts() -> None:
    pipe = open_pipe()
    assert pipe.receive(frame(b"good") + frame(b"text", TEXT) + frame(b"never")) == b"good"
    assert pipe.has_more
    with pytest.raises(PipeError, match="a text frame"):
        pipe.receive(b"")


def test_the_peer_closes() -> None:
    pipe = open_pipe()
    assert pipe.receive(frame(b"last") + frame(b"\x03\xe8bye", CLOSE) + frame(b"too late")) == b"last"
    assert pipe.ended
    assert not pipe.has_more
    assert not pipe.lingers
    assert ServerFrames().take(pipe.take_output()) == [(CLOSE, b"\x03\xe8bye")]


def test_we_close_and_wait_for_the_peer() -> None:
    pipe = open_pipe()
    pipe.send(b"last")
    pipe.shut()
    pipe.shut()
    assert ServerFrames().take(pipe.take_output()) == [(BINARY, b"last"), (CLOSE, b"\x03\xe8")]
    assert pipe.lingers
    assert pipe.receive(frame(b"on its way")) == b"on its way"
    assert pipe.lingers
    pipe.receive(frame(b"\x03\xe8", CLOSE))
    assert pipe.ended
    assert not pipe.lingers
    assert pipe.take_output() == b""


def test_the_end_before_the_upgrade_is_nothing() -> None:
    pipe = new_pipe()
    pipe.send(b"nobody understands this")
    pipe.shut()
    assert pipe.take_output() == b""
    assert not pipe.lingers


# ---- with others


def test_a_client_that_others_wrote() -> None:
    client = ClientProtocol(parse_uri("ws://localhost/mqtt"), subprotocols=["mqtt"])  # type: ignore[list-item]
    pipe = new_pipe()
    client.send_request(client.connect())
    pipe.receive(b"".join(client.data_to_send()))
    client.receive_data(pipe.take_output())
    client.events_received()
    assert client.handshake_exc is None
    assert client.subprotocol == "mqtt"
    client.send_binary(b"question")
    assert pipe.receive(b"".join(client.data_to_send())) == b"question"
    pipe.send(b"answer")
    pipe.shut()
    client.receive_data(pipe.take_output())
    answers = [event.data for event in client.events_received() if isinstance(event, Frame)]
    assert answers[0] == b"answer"
    pipe.receive(b"".join(client.data_to_send()))
    assert pipe.ended


@pytest.mark.parametrize("piece", [1, 50, 100_000])
def test_over_tls(pki: Path, piece: int) -> None:
    client = TlsPipe(
        client_context(str(pki / "ca.crt"), str(pki / "client.crt"), str(pki / "client.key")),
        False,
        "localhost",
    )
    tls = TlsPipe(server_context(str(pki / "server.crt"), str(pki / "server.key"), str(pki / "ca.crt")), True)
    server = LayeredPipe(tls, new_pipe())
    client.start()
    client.send(upgrade() + frame(b"question") * 200)
    plain = heard = b""
    for _ in range(10):
        data = client.take_output()
        for at in range(0, len(data), piece):
            plain += server.receive(data[at : at + piece])
            while server.has_more:
                plain += server.receive(b"")
        heard += client.receive(server.take_output())
    assert plain == b"question" * 200
    assert server.established
    certificate = server.peer()
    assert certificate is not None
    assert certificate.names["common_name"] == ("sensor-1",)
    server.send(b"answer")
    server.shut()
    assert server.lingers
    assert not server.ended
    heard += client.receive(server.take_output())
    frames = heard.partition(b"\r\n\r\n")[2]
    assert ServerFrames().take(frames) == [(BINARY, b"answer"), (CLOSE, b"\x03\xe8")]
    assert not client.ended
    client.send(frame(b"\x03\xe8", CLOSE))
    assert server.receive(client.take_output()) == b""
    assert server.ended
    server.shut()
    client.receive(server.take_output())
    assert client.ended, "and TLS says goodbye last"


def test_a_tls_failure_goes_through(pki: Path) -> None:
    tls = TlsPipe(server_context(str(pki / "server.crt"), str(pki / "server.key")), True)
    server = LayeredPipe(tls, new_pipe())
    with pytest.raises(OSError, match=r"HTTP_REQUEST|WRONG_VERSION|http request"):
        server.receive(upgrade())


# ---- anything at all


def feed(pipe: WebSocketPipe, data: bytes, piece: int) -> None:
    """Whatever comes, it is plain bytes or a `PipeError`."""
    try:
        for at in range(0, len(data), piece):
            drain(pipe, data[at : at + piece])
            pipe.send(b"x")
            pipe.take_output()
    except PipeError:
        pass
    pipe.shut()
    pipe.take_output()


@given(st.binary(max_size=300), st.integers(1, 50))
def test_anything_as_frames(data: bytes, piece: int) -> None:
    feed(open_pipe(), data, piece)


@given(
    st.lists(
        st.builds(
            frame,
            st.binary(max_size=200),
            st.integers(0, 15),
            fin=st.booleans(),
            mask=st.sampled_from([True] * 9 + [False]),
            reserved=st.sampled_from([0] * 9 + [1]),
        ),
        max_size=10,
    ),
    st.integers(1, 50),
)
def test_frames_in_any_order(frames: list[bytes], piece: int) -> None:
    feed(open_pipe(), b"".join(frames), piece)


@given(st.binary(max_size=300), st.integers(0, 200), st.integers(0, 50), st.integers(1, 50))
def test_anything_in_a_request(data: bytes, at: int, cut: int, piece: int) -> None:
    request = upgrade(Origin="https://a.example")
    feed(new_pipe(origins=("https://a.example",)), request[:at] + data + request[at + cut :], piece)

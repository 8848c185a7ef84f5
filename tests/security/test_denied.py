"""The deny list: read strictly, and looked into whichever way a client comes in."""

from __future__ import annotations

from pathlib import Path

import pytest

from edge_broker.core.ports import Admission, Challenge, Credentials
from edge_broker.errors import ConfigError
from edge_broker.security.denied import (
    Denied,
    DenyFileMistakes,
    DenyingAdmission,
    DenyList,
    end_denied,
    parse_denied,
    read_denied,
)
from edge_broker.wire import const
from edge_broker.wire.packets import Disconnect
from tests.pump.pump import Pump, TestClient

FILE = Path("denied")
TEXT = """# stolen on Monday
identity cellar
identity  a name with spaces \r
serial   3F:a2:09

serial 0xff
serial 00ab
"""


def test_a_list() -> None:
    denied = parse_denied(TEXT, FILE)
    assert denied.identities == {"cellar", "a name with spaces"}
    assert denied.serials == {0x3FA209, 0xFF, 0xAB}


def test_every_mistake_is_told_with_its_line() -> None:
    with pytest.raises(DenyFileMistakes) as error:
        parse_denied("identity a\ncellar\nserial xyz\nidentity\nserial\n", FILE)
    assert [mistake.key for mistake in error.value.mistakes] == ["line 2", "line 3", "line 4", "line 5"]
    assert "4 mistakes" in str(error.value)
    assert "identity NAME" in str(error.value)


def test_a_file_that_cannot_be_read(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="touch"):
        read_denied(tmp_path / "denied")
    (tmp_path / "denied").write_bytes(b"identity \xff\n")
    with pytest.raises(ConfigError, match="line 1: is not UTF-8"):
        read_denied(tmp_path / "denied")
    (tmp_path / "denied").write_bytes(b"")
    assert read_denied(tmp_path / "denied") == Denied()


class Everybody:
    """Lets everybody in as what they say they are."""

    passwords = None

    def authenticate(self, credentials: Credentials, answer: object) -> None:
        answer(Admission(const.SUCCESS, credentials.username or ""))  # type: ignore[operator]

    def begin(self, credentials: Credentials, method: str) -> object:
        return Steps(credentials.username or "") if method == "STEPS" else None


class Steps:
    def __init__(self, name: str) -> None:
        self.name = name

    def step(self, data: bytes) -> Challenge | Admission:
        return Challenge(b"?") if data == b"1" else Admission(const.SUCCESS, self.name)


def credentials(name: str) -> Credentials:
    return Credentials("c", name, None, "127.0.0.1", "here")


def test_whoever_is_on_it_does_not_come_in() -> None:
    deny_list = DenyList(Denied(identities=frozenset({"cellar"})))
    admission = DenyingAdmission(Everybody(), deny_list)  # type: ignore[arg-type]
    answers: list[Admission] = []
    for name in ("cellar", "attic"):
        admission.authenticate(credentials(name), answers.append)
    assert [answer.reason_code for answer in answers] == [const.BANNED, const.SUCCESS]
    assert "'cellar' is on the deny list" in answers[0].detail
    deny_list.replace(Denied())
    admission.authenticate(credentials("cellar"), answers.append)
    assert answers[-1] == Admission(const.SUCCESS, "cellar")


def test_nor_by_a_method_of_several_steps() -> None:
    admission = DenyingAdmission(Everybody(), DenyList(Denied(frozenset({"cellar"}))))  # type: ignore[arg-type]
    assert admission.begin(credentials("cellar"), "OTHER") is None
    for name, expected in (("cellar", const.BANNED), ("attic", const.SUCCESS)):
        exchange = admission.begin(credentials(name), "STEPS")
        assert exchange is not None
        assert exchange.step(b"1") == Challenge(b"?")
        answer = exchange.step(b"2")
        assert isinstance(answer, Admission)
        assert answer.reason_code == expected


def test_who_is_connected_is_ended_however_it_came() -> None:
    pump = Pump()
    cellar, attic = pump.client("a", username="cellar"), pump.client("b", username="attic")
    certified = TestClient(pump)
    certified.connection.certificate_names = ("cellar",)
    certified.connect("c", username="cellar")
    assert end_denied(pump.router, Denied(frozenset({"cellar", "nobody"}))) == 2
    pump.run()
    assert (cellar.closed, certified.closed, attic.closed) == (True, True, False)
    assert cellar.take(Disconnect).reason_code == const.NOT_AUTHORIZED, "DISCONNECT has no code for banned"

"""Who comes in, by listener, certificate and password: whom each is asked of, and what wins."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from edge_broker.core.ports import Admission, AuthenticationExchange, Challenge, Credentials
from edge_broker.security.admission import ANONYMOUS, ListenerAdmission
from edge_broker.wire import const


def ask(listener: str, names: tuple[str, ...] = (), username: str | None = None) -> Admission:
    admission = ListenerAdmission({"open": True, "closed": False})
    answers: list[Admission] = []
    password = None if username is None else b"secret"
    admission.authenticate(
        Credentials("c", username, password, "192.0.2.1:5", listener, names), answers.append
    )
    (answer,) = answers
    return answer


@pytest.mark.parametrize("username", [None, "alice"])
def test_anonymous_where_that_is_allowed(username: str | None) -> None:
    assert ask("open", username=username) == Admission(const.SUCCESS, ANONYMOUS, method="anonymous")


@pytest.mark.parametrize("listener", ["closed", "unknown"])
@pytest.mark.parametrize("username", [None, "alice"])
def test_nobody_unproven_elsewhere(listener: str, username: str | None) -> None:
    answer = ask(listener, username=username)
    assert answer.reason_code == const.NOT_AUTHORIZED
    assert "secret" not in answer.detail
    assert answer.detail


@pytest.mark.parametrize("listener", ["open", "closed"])
def test_a_certificate_is_the_identity_wherever_there_is_one(listener: str) -> None:
    assert ask(listener, ("sensor-1", "second")) == Admission(const.SUCCESS, "sensor-1", method="certificate")


# ---- with passwords


class Passwords:
    """Lets everybody in whose password is "right", and offers one method; notes whom it was asked about."""

    def __init__(self) -> None:
        self.asked: list[str | None] = []

    def authenticate(self, credentials: Credentials, answer: Callable[[Admission], None]) -> None:
        self.asked.append(credentials.username)
        is_right = credentials.password == b"right"
        answer(Admission(const.SUCCESS if is_right else const.BAD_USER_NAME_OR_PASSWORD, "by password"))

    def begin(self, credentials: Credentials, method: str) -> AuthenticationExchange | None:
        return Method() if method == "METHOD" else None


class Method:
    def step(self, data: bytes) -> Challenge | Admission:
        return Challenge(data)


@pytest.mark.parametrize(
    ("listener", "names", "username", "password", "answer"),
    [
        ("closed", (), "alice", b"right", Admission(const.SUCCESS, "by password")),
        ("closed", (), "alice", b"wrong", Admission(const.BAD_USER_NAME_OR_PASSWORD, "by password")),
        ("open", (), "alice", b"wrong", Admission(const.SUCCESS, ANONYMOUS, method="anonymous")),
        ("open", (), None, None, Admission(const.SUCCESS, ANONYMOUS, method="anonymous")),
        (
            "closed",
            ("sensor-1",),
            "alice",
            b"wrong",
            Admission(const.SUCCESS, "sensor-1", method="certificate"),
        ),
        (
            "open",
            ("sensor-1",),
            "alice",
            b"right",
            Admission(const.SUCCESS, "sensor-1", method="certificate"),
        ),
    ],
)
def test_passwords_count_where_nothing_else_does(
    listener: str, names: tuple[str, ...], username: str | None, password: bytes | None, answer: Admission
) -> None:
    passwords = Passwords()
    answers: list[Admission] = []
    ListenerAdmission({"open": True, "closed": False}, passwords).authenticate(
        Credentials("c", username, password, "192.0.2.1:5", listener, names), answers.append
    )
    assert answers == [answer]
    assert bool(passwords.asked) is (answer.identity == "by password")


@pytest.mark.parametrize("password", [None, b"right"])
def test_without_a_user_name_there_is_nobody_to_ask_about(password: bytes | None) -> None:
    passwords = Passwords()
    answers: list[Admission] = []
    ListenerAdmission({}, passwords).authenticate(
        Credentials("c", None, password, "192.0.2.1:5", "closed"), answers.append
    )
    assert [answer.reason_code for answer in answers] == [const.NOT_AUTHORIZED]
    assert "user name" in answers[0].detail
    assert not passwords.asked


@pytest.mark.parametrize("listener", ["open", "closed"])
@pytest.mark.parametrize("names", [(), ("sensor-1",)])
def test_methods_are_what_the_passwords_offer(listener: str, names: tuple[str, ...]) -> None:
    credentials = Credentials("c", None, None, "192.0.2.1:5", listener, names)
    admission = ListenerAdmission({"open": True}, Passwords())
    assert isinstance(admission.begin(credentials, "METHOD"), Method)
    assert admission.begin(credentials, "ANOTHER") is None
    assert ListenerAdmission({"open": True}).begin(credentials, "METHOD") is None

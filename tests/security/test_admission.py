"""Who comes in, by listener and certificate."""

from __future__ import annotations

import pytest

from edge_broker.core.ports import Admission, Credentials
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
    assert ask("open", username=username) == Admission(const.SUCCESS, ANONYMOUS)


@pytest.mark.parametrize("listener", ["closed", "unknown"])
@pytest.mark.parametrize("username", [None, "alice"])
def test_nobody_unproven_elsewhere(listener: str, username: str | None) -> None:
    answer = ask(listener, username=username)
    assert answer.reason_code == const.NOT_AUTHORIZED
    assert "secret" not in answer.detail
    assert answer.detail


@pytest.mark.parametrize("listener", ["open", "closed"])
def test_a_certificate_is_the_identity_wherever_there_is_one(listener: str) -> None:
    assert ask(listener, ("sensor-1", "second")) == Admission(const.SUCCESS, "sensor-1")

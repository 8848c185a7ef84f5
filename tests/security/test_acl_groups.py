"""Groups out of a token and an ACL, in one running broker: what a client may do follows from what its issuer says of it."""

from __future__ import annotations

import logging
import os
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from edge_broker.broker import Broker
from edge_broker.wire import const
from edge_broker.wire.encoder import encode_subscribe
from edge_broker.wire.packets import SubscriptionRequest
from tests.net.hub import Peer, until
from tests.security.issuer import AUDIENCE
from tests.security.serving import lines, serving
from tests.security.test_token_clients import authenticate_anew, connect_by_method, token, write_keys

RULES = '[roles.staff]\nallow.subscribe = ["sensors/#"]\n[groups]\nstaff = ["staff"]\n'


@pytest.fixture
async def broker(tmp_path: Path) -> AsyncIterator[Broker]:
    acl = tmp_path / "acl.toml"
    acl.write_text(RULES)
    options: dict[str, Any] = {
        "jwt_keys": (write_keys(tmp_path, 0),),
        "jwt_audience": AUDIENCE,
        "acl_file": acl,
    }
    async with serving(tmp_path, lines("bob", "paper"), **options) as broker:
        yield broker


async def granted(peer: Peer) -> list[int]:
    """What SUBSCRIBE is answered with."""
    peer.writer.write(encode_subscribe(const.MQTT_5, 1, [SubscriptionRequest("sensors/#", 1)]))
    answer = await peer.receive()
    codes: list[int] = answer.reason_codes
    return codes


async def test_groups_of_a_token_have_roles(broker: Broker) -> None:
    peer, _ = await connect_by_method(broker, token(groups=["staff"]))
    assert await granted(peer) == [1]
    stranger, _ = await connect_by_method(broker, token("otto", groups=["stuff"]), "d")
    assert await granted(stranger) == [const.NOT_AUTHORIZED]


async def test_another_token_takes_what_its_groups_may_not(broker: Broker) -> None:
    peer, _ = await connect_by_method(broker, token(groups=["staff"]))
    assert await granted(peer) == [1]
    answer = await authenticate_anew(peer, token())
    assert answer.reason_code == const.SUCCESS
    assert broker.router.sessions["c"].subscriptions == {}
    assert await granted(peer) == [const.NOT_AUTHORIZED]


async def test_a_changed_file_is_taken_by_itself(broker: Broker, caplog: pytest.LogCaptureFixture) -> None:
    peer, _ = await connect_by_method(broker, token(groups=["staff"]))
    assert await granted(peer) == [1]
    acl = broker.config.security.acl_file
    assert acl is not None
    new = acl.with_name("new.toml")
    with caplog.at_level(logging.INFO):
        new.write_text(RULES.replace("staff = [", "stuff = ["))
        os.replace(new, acl)
        await until(lambda: broker.router.sessions["c"].subscriptions == {})
        new.write_text("[roles")
        os.replace(new, acl)
        await until(lambda: "ACL" in broker.watching.refused)
    assert await granted(peer) == [const.NOT_AUTHORIZED]

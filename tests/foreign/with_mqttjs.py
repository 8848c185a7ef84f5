"""MQTT.js, run by node: every version, every transport. One process serves all connections of a test."""

from __future__ import annotations

import asyncio
import json
from asyncio.subprocess import PIPE, Process
from base64 import b64decode, b64encode
from itertools import count
from pathlib import Path
from typing import Any

from tests.foreign.port import (
    SESSION_EXPIRY_SECONDS,
    WAIT_SECONDS,
    Connection,
    Endpoint,
    ForeignClient,
    Message,
    Wish,
)

FOLDER = Path(__file__).parent
_AGENT = FOLDER / "mqttjs_agent.js"
_MAX_LINE_BYTES = 1 << 22


class Agent:
    """The node process: commands to it, answers and messages from it, each a line of JSON."""

    def __init__(self, process: Process) -> None:
        self._process = process
        self._numbers = count()
        self._answers: dict[int, asyncio.Future[dict[str, Any]]] = {}
        self._inboxes: dict[str, asyncio.Queue[Message]] = {}
        self._reading = asyncio.create_task(self._read())

    @classmethod
    async def start(cls) -> Agent:
        process = await asyncio.create_subprocess_exec(
            "node", str(_AGENT), stdin=PIPE, stdout=PIPE, limit=_MAX_LINE_BYTES
        )
        return cls(process)

    async def tell(self, command: str, client: str, **rest: Any) -> dict[str, Any]:
        """Give a command for one of the clients; its answer, or AssertionError with what went wrong there."""
        assert self._process.stdin is not None
        number = next(self._numbers)
        self._answers[number] = asyncio.get_running_loop().create_future()
        line = json.dumps({"id": number, "command": command, "client": client, **rest})
        self._process.stdin.write(line.encode() + b"\n")
        return await self._answers[number]

    def deliver(self, client: str, inbox: asyncio.Queue[Message]) -> None:
        """Messages for that client go there from now on."""
        self._inboxes[client] = inbox

    async def _read(self) -> None:
        assert self._process.stdout is not None
        async for line in self._process.stdout:
            heard = json.loads(line)
            if "message" in heard:
                self._inboxes[heard["client"]].put_nowait(_decoded(heard["message"]))
                continue
            waiting = self._answers.pop(heard["id"])
            if waiting.done():
                continue  # nobody waits any more
            if "error" in heard:
                waiting.set_exception(AssertionError(heard["error"]))
            else:
                waiting.set_result(heard["answer"])
        for waiting in self._answers.values():
            if not waiting.done():
                waiting.set_exception(AssertionError("node has ended"))

    async def stop(self) -> None:
        assert self._process.stdin is not None
        self._process.stdin.close()
        try:
            await asyncio.wait_for(self._process.wait(), WAIT_SECONDS)
        except TimeoutError:
            self._process.kill()
            raise
        await self._reading
        assert self._process.returncode == 0


class MqttjsConnection:
    def __init__(self, agent: Agent, client: str, session_present: bool, with_properties: bool) -> None:
        self.session_present: bool | None = session_present
        self._agent, self._client, self._with_properties = agent, client, with_properties

    async def publish(self, message: Message) -> None:
        properties = None
        if self._with_properties:
            correlation = b64encode(message.correlation).decode()
            properties = {"response_topic": message.response_topic, "correlation": correlation}
        await self._agent.tell("publish", self._client, **_encoded(message), properties=properties)

    async def leave(self) -> None:
        await self._agent.tell("leave", self._client)

    async def vanish(self) -> None:
        await self._agent.tell("vanish", self._client)


class MqttjsClient(ForeignClient):
    name = "MQTT.js"
    needs = ("node", "npm")
    fixtures = ("node_modules",)

    def __init__(self, endpoint: Endpoint) -> None:
        super().__init__(endpoint)
        self._agent: Agent | None = None
        self._names = count()

    async def connect(self, wish: Wish, inbox: asyncio.Queue[Message]) -> Connection:
        if self._agent is None:
            self._agent = await Agent.start()
        client = str(next(self._names))
        self._agent.deliver(client, inbox)
        answer = await self._agent.tell(
            "connect",
            client,
            url=self.endpoint.url("mqtt", "mqtts"),
            ca=str(self.endpoint.ca) if self.endpoint.secure else None,
            version=self.endpoint.version,
            client_id=wish.client_id,
            durable=wish.durable,
            expiry=SESSION_EXPIRY_SECONDS if wish.durable else 0,
            will=None if wish.will is None else _encoded(wish.will),
            filters=wish.filters,
            qos=wish.qos,
        )
        assert answer["granted"] == [wish.qos] * len(wish.filters)
        return MqttjsConnection(
            self._agent, client, answer["session_present"], self.endpoint.version == "5.0"
        )

    async def close(self) -> None:
        if self._agent is not None:
            await self._agent.stop()


def _encoded(message: Message) -> dict[str, Any]:
    payload = b64encode(message.payload).decode()
    return {"topic": message.topic, "payload": payload, "qos": message.qos, "retain": message.retain}


def _decoded(heard: dict[str, Any]) -> Message:
    return Message(
        heard["topic"],
        b64decode(heard["payload"]),
        heard["qos"],
        heard["retain"],
        heard["response_topic"],
        b64decode(heard["correlation"]),
    )

"""The script with every foreign client, in every version, over every transport: one test for each cell."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from tests.foreign.cells import CELLS, CLIENTS, Cell
from tests.foreign.port import SESSION_PRESENT, TRANSPORTS, VERSIONS, Endpoint, ForeignClient
from tests.foreign.script import STEPS, play
from tests.integration.serving import Serving

CELL_SECONDS = 10.0


def marked(cell: Cell) -> object:
    """The parameter of a cell; reports build the matrix from its mark."""
    mark = pytest.mark.foreign(client=cell.client.name, version=cell.version, transport=cell.transport)
    return pytest.param(cell, id=str(cell), marks=[mark, pytest.mark.needs(*cell.client.needs)])


@pytest.fixture
def endpoint(request: pytest.FixtureRequest, cell: Cell, serving: Serving, pki: Path) -> Endpoint:
    """Where this cell's broker listens; what else the client needs is set up with it."""
    for fixture in cell.client.fixtures:
        request.getfixturevalue(fixture)
    port = serving.port_of(TRANSPORTS.index(cell.transport))
    return Endpoint(cell.version, cell.transport, port, pki / "ca.crt")


@pytest.fixture
async def client(cell: Cell, endpoint: Endpoint) -> AsyncIterator[ForeignClient]:
    made = cell.client(endpoint)
    yield made
    await made.close()


@pytest.mark.parametrize("cell", [marked(cell) for cell in CELLS])
async def test_the_script(client: ForeignClient) -> None:
    await play(client, CELL_SECONDS)


@pytest.mark.parametrize("client", CLIENTS, ids=lambda client: client.name)
def test_nothing_is_left_out_without_a_reason(client: type[ForeignClient]) -> None:
    known = {*VERSIONS, *TRANSPORTS, SESSION_PRESENT, *(step.__name__ for step in STEPS)}
    assert set(client.left_out) <= known
    assert all(client.left_out.values())
    assert any(cell.client is client for cell in CELLS)

"""A test for every normative statement that binds a server, over real sockets, judged by a codec of its own."""

import pytest

pytest.register_assert_rewrite(
    "tests.conformance.wire", "tests.conformance.websocket", "tests.conformance.harness"
)

"""Packet vectors, derived by hand from the OASIS specifications of MQTT 3.1.1 and 5.0 (and IBM's of 3.1), as data.

`VALID` has at least one vector for every packet type of every version and for every property; `MALFORMED` one for every
way of being wrong that the specifications name. They drive the decoder's and encoder's tests and seed the fuzzing.
"""

from typing import Final

from tests.golden.connections import CONNECTIONS
from tests.golden.malformed import MALFORMED_VECTORS
from tests.golden.messages import MESSAGES
from tests.golden.notation import Malformed as Malformed
from tests.golden.notation import Valid as Valid
from tests.golden.subscriptions import SUBSCRIPTIONS

VALID: Final[tuple[Valid, ...]] = (*CONNECTIONS, *MESSAGES, *SUBSCRIPTIONS)
MALFORMED: Final[tuple[Malformed, ...]] = MALFORMED_VECTORS

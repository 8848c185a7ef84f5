"""`python -m edge_broker` is `edge-broker`."""

from edge_broker.cli import main

main(prog_name="edge-broker")

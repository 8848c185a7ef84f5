"""`edge-devices`: sensors on the command line, recorded and real.

    edge-devices replay    recorded readings, as many devices, at any speed
    edge-devices sense     this machine's own sensors

Both speak to any MQTT broker.
"""

import click

from devices.cli.replay import replay
from devices.cli.sense import sense


@click.group(context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100})
def main() -> None:
    """Send sensor readings to an MQTT broker: recorded ones as a fleet of devices, or this machine's own."""


main.add_command(replay)
main.add_command(sense)

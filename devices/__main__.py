"""python -m devices: the same as `edge-devices`."""

from devices.cli import main

if __name__ == "__main__":
    main(prog_name="edge-devices")

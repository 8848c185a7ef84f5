"""A small device SDK: readings to any MQTT broker that survive outages, power cuts and kill -9, and commands back.

    from devices import Device

    with Device("porch", "mqtt://127.0.0.1:1883", spool="porch.spool") as device:
        device.publish_reading({"temperature_celsius": 21.5})

A device is a stranger that speaks MQTT: nothing here knows which broker it talks to. Beside the Device there are
sensors (`devices.sensors`), recorded real readings (`devices.recorded`), simulated fleets (`devices.fleet`) and a
command line, `edge-devices`.
"""

from devices.commands import Command
from devices.device import Device, DeviceStats, Timing
from devices.errors import (
    BrokerUrlError,
    DeviceError,
    ReadingError,
    RecordedDataError,
    SensorError,
    SpoolError,
    SpoolFullError,
    SpoolInUseError,
)
from devices.spool import SpoolLimits

__all__ = [
    "BrokerUrlError",
    "Command",
    "Device",
    "DeviceError",
    "DeviceStats",
    "ReadingError",
    "RecordedDataError",
    "SensorError",
    "SpoolError",
    "SpoolFullError",
    "SpoolInUseError",
    "SpoolLimits",
    "Timing",
]

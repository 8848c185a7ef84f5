"""An MQTT 3.1.1 and 5.0 broker for IoT gateways: acknowledged means kept."""

__version__ = "0.1.0"

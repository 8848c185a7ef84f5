"""MQTT as bytes: packets, properties, topics. Pure: no clock, no socket, no log."""

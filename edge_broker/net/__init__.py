"""Sockets to the core: transports, TLS, listeners."""

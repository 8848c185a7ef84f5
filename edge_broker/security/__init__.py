"""Who may connect and what they may do: what the core asks for in ``core.ports``."""

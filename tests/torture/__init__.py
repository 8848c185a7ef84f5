"""Power cuts and kills under load, with an account of every message: `make torture`."""

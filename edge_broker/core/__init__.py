"""The broker's logic: sessions, queues, routing. Pure: bytes and `now` go in, bytes and storage operations come out."""

"""The ingester: beside the cluster's broker it takes what gateways sent, once each, and says what is missing.

`edge-broker ingest` runs it; docs/ingest.md says what it promises and what crosses the line.
"""

"""Side-by-side measurements of MQTT brokers under closed-loop load: `python -m benchmarks --help`.

Every figure comes from a broker process that this run started, beside a yardstick started in the same run. The
load generator speaks MQTT with its own few lines (`wire`), so that no broker is judged by its own codec.
"""

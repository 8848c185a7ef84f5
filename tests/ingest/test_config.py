"""The ingester's file: its defaults, and a message that says what to do for each thing that cannot be."""

from __future__ import annotations

from pathlib import Path

import pytest
from click.testing import CliRunner

from bridge.envelope import train_dictionary
from bridge.ingest.config import IngestConfig
from bridge.ingest.loading import load_ingest_config
from edge_broker.cli import main
from edge_broker.config.loading import ConfigMistakes
from edge_broker.config.reference import BEGIN, END, render_file_reference

CLUSTER = '[cluster]\nurls = ["mqtt://127.0.0.1"]\n'
DOCS = Path(__file__).resolve().parents[2] / "docs/ingest.md"


def load(folder: Path, text: str) -> IngestConfig:
    path = folder / "ingest.toml"
    path.write_text(text)
    return load_ingest_config(path)


def test_the_least_that_must_be_said(tmp_path: Path) -> None:
    config = load(tmp_path, CLUSTER)
    assert (config.output, config.cluster.client_id[:12]) == ("file", "edge-ingest-")
    assert config.topics.filters == ("edge/+/envelopes", "edge/+/skipped")
    assert config.file_directory == config.data_dir / "output"
    assert config.table_path == config.data_dir / "readings.db"
    assert (config.lease.valid_seconds, config.lease.renew_seconds) == (180, 60)


def test_paths_start_at_the_file(tmp_path: Path) -> None:
    config = load(tmp_path, 'data_dir = "data"\n' + CLUSTER + '[file]\ndirectory = "out"\n')
    assert (config.data_dir, config.file_directory) == (tmp_path / "data", tmp_path / "out")


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("", "cluster: is missing"),
        ("[cluster]\nurls = []\n", "cluster.urls: is empty"),
        ('[cluster]\nurls = ["tcp://h"]\n', "write mqtt://h"),
        ('[cluster]\nurls = ["mqtt+srv://_mqtt._tcp.h"]\n', "cluster.urls[0]: names a service"),
        ('[cluster]\nurls = ["mqtt://h"]\nca = "/none.pem"\n', "cluster.ca: has no meaning without TLS"),
        ('[cluster]\nurls = ["mqtt://h"]\nclient_id = ""\n', "cluster.client_id: must be text"),
        ('[cluster]\nurls = ["mqtt://h"]\nurl = "mqtt://h"\n', "did you mean urls?"),
        (CLUSTER + '[topics]\nmessages = ["a/#/b"]\n', "topics.messages[0]: 'a/#/b' is no filter"),
        (CLUSTER + '[topics]\nenvelopes = "edge/envelopes"\n', "topics.envelopes: must have one +"),
        (CLUSTER + '[topics]\nenvelopes = ""\nskipped = ""\n', "topics: names nothing to take"),
        ('output = "mqtt"\n' + CLUSTER, "target: is missing"),
        ('output = "kafka"\n' + CLUSTER, 'write "file" or "mqtt" or "table"'),
        (
            'output = "mqtt"\n' + CLUSTER + '[target]\nurls = ["mqtt://127.0.0.1"]\nclient_id = "t"\n',
            "leads back",
        ),
        (
            'output = "mqtt"\n'
            + CLUSTER
            + '[target]\nurls = ["mqtt://127.0.0.1"]\n[mqtt]\ntopic_prefix = "in/"\n',
            "target.client_id: is the one of cluster",
        ),
        (CLUSTER + '[mqtt]\ntopic_prefix = "in"\n', "mqtt.topic_prefix: must end with /"),
        (CLUSTER + '[lease]\ntopic = "edge/+"\n', "lease.topic: 'edge/+' is no topic"),
        (CLUSTER + "[lease]\nrenew_seconds = 100\n", "lease.renew_seconds: is more than half"),
        (
            CLUSTER + '[lease]\ndictionaries = ["/none.dict"]\n',
            "lease.dictionaries[0]: /none.dict cannot be read",
        ),
        (CLUSTER + "[limits]\nenvelope_bytes = 100000000\n", "limits.envelope_bytes: is more than"),
        (CLUSTER + '[http]\nbind = "0.0.0.0:8081"\n', "http.bind: is open to the network"),
        (CLUSTER + '[http]\nbind = "8081"\n', "http.bind: '8081' has no port"),
    ],
)
def test_mistakes_are_told(tmp_path: Path, text: str, said: str) -> None:
    with pytest.raises(ConfigMistakes) as told:
        load(tmp_path, text)
    assert said in str(told.value)


def test_a_dictionary_must_be_one(tmp_path: Path) -> None:
    dictionary = tmp_path / "room.dict"
    text = CLUSTER + f'[lease]\ndictionaries = ["{dictionary}"]\n'
    dictionary.write_bytes(b"anything else")
    with pytest.raises(ConfigMistakes, match="is no dictionary of zstd"):
        load(tmp_path, text)
    samples = [b'{"room": %d, "temperature": %d.5}' % (number, number % 40) for number in range(2_000)]
    dictionary.write_bytes(train_dictionary(samples, 1_024))
    assert load(tmp_path, text).lease.dictionaries == (dictionary,)


def test_the_commands_tell_them_too(tmp_path: Path) -> None:
    path = tmp_path / "ingest.toml"
    path.write_text(f'data_dir = "{tmp_path}"\n' + CLUSTER)
    checked = CliRunner().invoke(main, ["ingest", "check", str(path)])
    assert checked.exit_code == 0, checked.output
    assert "output   files of json in" in checked.output
    unstarted = CliRunner().invoke(main, ["ingest", "status", "-c", str(path)])
    assert (unstarted.exit_code, "no ingester has run" in unstarted.output) == (1, True)
    path.write_text("output = 1\n")
    for arguments in (["check", str(path)], ["run", "-c", str(path)], ["status", "-c", str(path)]):
        refused = CliRunner().invoke(main, ["ingest", *arguments])
        assert (refused.exit_code, "2 mistakes" in refused.output) == (2, True)


def test_the_reference_in_the_documentation_is_this_version(tmp_path: Path) -> None:
    document = DOCS.read_text("utf-8")
    _, _, rest = document.partition(BEGIN)
    assert rest.partition(END)[0].strip() == render_file_reference(IngestConfig).strip()


def test_the_example_in_the_documentation_is_right(tmp_path: Path) -> None:
    examples = DOCS.read_text("utf-8").split("```toml\n")[1:]
    assert examples
    for example in examples:
        load(tmp_path, example.partition("```")[0])

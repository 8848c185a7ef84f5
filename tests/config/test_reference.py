"""`docs/configuration.md`: its reference is the model's, its examples are accepted, and the full one is full."""

from __future__ import annotations

import re
import tomllib
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner

from bridge.canary_config import CanaryConfig
from bridge.config import BridgeConfig, RuleConfig
from bridge.envelope import train_dictionary
from bridge.envelopes_config import EnvelopesConfig
from bridge.policy_config import FailoverConfig, PacingConfig, UpstreamConfig
from edge_broker.cli import main
from edge_broker.config.model import Config
from edge_broker.config.reading import struct_of
from edge_broker.config.reference import BEGIN, render_reference, replace_reference
from edge_broker.store.keys import new_key
from tests.config.certificates import write_crl, write_pair
from tests.security.issuer import jwk, private_key, write_pem, write_set

DOCUMENT = Path(__file__).parents[2] / "docs" / "configuration.md"
TEXT = DOCUMENT.read_text("utf-8")
EXAMPLES = {
    found["name"]: found["toml"]
    for found in re.finditer(r"```toml\n# (?P<name>\w+)\n(?P<toml>.*?)```", TEXT, re.DOTALL)
}


def test_the_reference_is_up_to_date() -> None:
    reference = render_reference({"bridges": BridgeConfig})
    assert replace_reference(TEXT, reference) == TEXT, (
        "run: edge-broker reference --update docs/configuration.md"
    )


def test_every_key_is_described() -> None:
    reference = render_reference({"bridges": BridgeConfig})
    rows = re.findall(r"^\| `(\w+)` \| (.+) \| (.+) \| (.*) \|$", reference, re.MULTILINE)
    keys = {key for key, *_ in rows}
    for struct in (*sections().values(), RuleConfig):
        assert set(struct.__struct_encode_fields__) <= keys
    assert "data_dir" in keys
    assert all(all(cell.strip() for cell in row) for row in rows)


def test_a_document_without_markers_is_refused() -> None:
    with pytest.raises(ValueError, match="it needs a line"):
        replace_reference("# nothing", "x")
    with pytest.raises(ValueError, match="it needs a line"):
        replace_reference(BEGIN, "x")


def sections() -> dict[str, Any]:
    """Each section's struct, by its name in the file."""
    structs = {name: struct_of(annotation) for name, annotation in annotations(Config).items()}
    return {name: struct for name, struct in structs.items() if struct} | {"bridges": BridgeConfig}


def annotations(struct: Any) -> dict[str, Any]:
    import msgspec

    return {field.encode_name: field.type for field in msgspec.structs.fields(struct)}


def test_the_full_example_has_every_key() -> None:
    example = tomllib.loads(EXAMPLES["full"])
    assert set(example) == set(Config.__struct_encode_fields__)
    for name, struct in sections().items():
        tables = example[name] if isinstance(example[name], list) else [example[name]]
        assert {key for table in tables for key in table} == set(struct.__struct_encode_fields__)
    bridges = example["bridges"]  # not every key goes together with every other
    keys = {key for bridge in bridges for rule in (*bridge["out"], *bridge.get("in", ())) for key in rule}
    assert keys == set(RuleConfig.__struct_encode_fields__)
    keys = {key for bridge in bridges for upstream in bridge.get("upstreams", ()) for key in upstream}
    assert keys == set(UpstreamConfig.__struct_encode_fields__)
    for name, struct in (
        ("failover", FailoverConfig),
        ("pacing", PacingConfig),
        ("envelopes", EnvelopesConfig),
    ):
        assert set(bridges[-1][name]) == set(struct.__struct_encode_fields__)
    assert (
        {"urls", "percent", "client_id"}
        <= set(bridges[-1]["canary"])
        <= set(CanaryConfig.__struct_encode_fields__)
    )


@pytest.mark.parametrize("name", ["minimal", "full"])
def test_the_examples_are_accepted(name: str, tmp_path: Path) -> None:
    (tmp_path / "tls").mkdir()
    for pair in ("gateway", "sensors-ca", "cloud-ca"):
        write_pair(tmp_path / "tls", pair)
    (tmp_path / "cloud.password").write_text("secret\n")
    for empty in ("passwords", "acl.toml", "denied"):
        (tmp_path / empty).write_text("")
    write_crl(tmp_path / "tls", "sensors-ca").rename(tmp_path / "tls" / "sensors.crl")
    (tmp_path / "http-tokens").write_text("")
    write_set(tmp_path / "issuer.json", jwk("RS256", kid="2026"))
    write_pem(tmp_path / "workshop.pem", private_key("EdDSA"))
    new_key(tmp_path / "store.key")
    samples = [b'{"room":"%d","temperature":%d.5}' % (at % 9, at % 31) for at in range(2000)]
    (tmp_path / "readings.dictionary").write_bytes(train_dictionary(samples, 2048))
    path = tmp_path / "edge-broker.toml"
    path.write_text(EXAMPLES[name])
    result = CliRunner().invoke(main, ["check", str(path)])
    assert result.output.startswith(f"{path}: OK\n")
    assert result.exit_code == 0

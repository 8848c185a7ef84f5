"""`[security]`: who comes in by password or token, who never does, what guessing costs, where it says who may do what."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

from msgspec import Meta

from edge_broker.config.section import DAY_SECONDS, Section


class SecurityConfig(Section, frozen=True):
    """Who comes in by password or token and who never does; who may do what. See [Security](security.md)."""

    password_file: Annotated[
        Path | None,
        Meta(
            description="Names and hashed passwords, a line each, made by `edge-broker passwd`. With it, clients come in "
            "by user name and password or by SCRAM-SHA-256 on listeners that are not anonymous. Read anew when it changes.",
        ),
    ] = None
    deny_file: Annotated[
        Path | None,
        Meta(
            description="Identities and serial numbers of certificates that are not let in, whatever they prove, a line "
            "each: `identity NAME` or `serial HEX`. Read anew when it changes; their connections then end.",
        ),
    ] = None
    acl_file: Annotated[
        Path | None,
        Meta(
            description="Who may publish and subscribe to what: roles and whose they are, in TOML. With it, nothing is "
            "allowed that it does not allow; without it, everything. Read anew when it changes.",
        ),
    ] = None
    max_waiting_passwords: Annotated[
        int,
        Meta(
            ge=1,
            le=100_000,
            description="Passwords that wait to be checked, two at a time, each some 30 ms on a small server. Clients "
            "beyond it are told to come back later (0x89, server busy).",
        ),
    ] = 3_000
    wrong_passwords_per_name: Annotated[
        int,
        Meta(
            ge=0,
            le=1_000_000,
            description="Different wrong passwords for one name from one address within the window; then that address is "
            "refused that name (0x8a, banned). The same one again and again counts once. 0 is no limit.",
        ),
    ] = 10
    wrong_passwords_per_address: Annotated[
        int,
        Meta(
            ge=0,
            le=1_000_000,
            description="The same over all names of one address, which is then refused whatever name it gives. Behind NAT "
            "many share an address. This machine (loopback, unix) is never refused as a whole. 0 is no limit.",
        ),
    ] = 200
    wrong_password_window_seconds: Annotated[
        int,
        Meta(ge=1, le=DAY_SECONDS, description="How long a wrong password is counted."),
    ] = 300
    ban_seconds: Annotated[
        int,
        Meta(ge=1, le=DAY_SECONDS, description="How long one who guessed too often is refused."),
    ] = 300
    wrong_password_delay_seconds: Annotated[
        float,
        Meta(
            ge=0,
            le=60,
            description="The longest that the answer to a wrong password is held back: the first some 0.2 s, each further "
            "one twice as long. 0 is not at all. SCRAM's answers are not held back.",
        ),
    ] = 3.0
    jwt_keys: Annotated[
        tuple[Path, ...],
        Meta(
            description="Public keys that JSON Web Tokens are verified with: PEM files, or key sets (JWKS) as the issuer "
            "publishes them. With them, clients come in by a token in the password's place or by the authentication method "
            "JWT. RS256, ES256 and EdDSA. Read anew when they change.",
        ),
    ] = ()
    jwt_audience: Annotated[
        str,
        Meta(
            description="What a token's `aud` has to name: this gateway, or all of them. Needed with `jwt_keys`."
        ),
    ] = ""
    jwt_issuer: Annotated[
        str, Meta(description="What a token's `iss` has to be; empty is not looked at.")
    ] = ""
    jwt_leeway_seconds: Annotated[
        int,
        Meta(
            ge=0,
            le=3_600,
            description="How far the issuer's clock and this one's may be apart: a token counts so long before its `nbf` "
            "and after its `exp`.",
        ),
    ] = 30
    jwt_name_claim: Annotated[
        str,
        Meta(description="The claim that names the client; `a.b` is `b` within `a`."),
    ] = "sub"
    jwt_groups_claim: Annotated[
        str,
        Meta(
            description="The claim that says which groups it belongs to, a list or words with spaces between, such as "
            "`realm_access.roles` or `scope`.",
        ),
    ] = "groups"
    jwt_user_name: Annotated[
        Literal["must_match", "ignored"],
        Meta(
            description="Whether a user name beside the token must be the one that the token names. Some devices send a "
            "fixed word there.",
        ),
    ] = "must_match"
    jwt_max_bytes: Annotated[
        int,
        Meta(ge=256, le=32_768, description="A longer token is refused before anything of it is looked at."),
    ] = 8_192

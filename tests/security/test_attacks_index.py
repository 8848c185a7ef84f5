"""Which test attempts which attack. An attack without a test, or a test that is gone, fails here.

The names are those of modules under `tests` and of their functions.
"""

from __future__ import annotations

import importlib

import pytest

ATTACKS = {
    "TLS downgrade": {
        "security.test_attack_tls": (
            "test_no_older_version",
            "test_no_weaker_cipher",
            "test_a_client_that_was_talked_down_is_warned",
            "test_no_handshake_is_begun_anew",
            "test_no_early_data",
            "test_mqtt_without_tls_gets_nothing_from_a_tls_listener",
            "test_tls_gets_nothing_from_a_plain_listener",
        ),
        "net.test_client_certificates": ("test_only_ciphers_that_keep_past_secrets_safe",),
        "ops.test_http_protected": ("test_old_tls_is_refused", "test_plain_http_to_a_tls_port_gets_nothing"),
    },
    "certificates: expired, not yet valid, of a wrong CA, of servers": {
        "net.test_client_certificates": ("test_refused_in_the_handshake",),
    },
    "certificates: self-signed": {
        "net.test_client_certificates": ("test_a_certificate_that_signed_itself",),
    },
    "certificates: revoked, denied, no list that holds": {
        "net.test_client_certificates": (
            "test_a_revoked_certificate",
            "test_without_a_list_that_holds_nobody_comes_in_unless_that_is_wanted",
            "test_who_is_revoked_is_ended_and_the_others_stay",
            "test_a_resumed_session_is_judged_like_any_other",
            "test_a_denied_serial_is_ended",
        ),
        "integration.test_certificates": (
            "test_revoked_while_connected",
            "test_denied_while_connected_by_name_and_by_serial",
        ),
    },
    "a client certificate on the wrong listener": {
        "net.test_client_certificates": ("test_each_listener_has_demands_of_its_own",),
        "security.test_attack_tls": (
            "test_a_certificate_counts_only_where_one_is_asked_for",
            "test_a_password_is_no_certificate",
        ),
    },
    "JWT: none": {"security.test_tokens": ("test_none_is_no_algorithm",)},
    "JWT: swapped algorithms": {
        "security.test_tokens": (
            "test_a_public_key_is_no_secret",
            "test_other_algorithms",
            "test_swapped_algorithms",
            "test_a_key_of_another_algorithm_under_that_kid",
            "test_a_header_that_brings_its_own_rules",
        ),
    },
    "JWT: wrong audience, issuer, time": {"security.test_tokens": ("test_claims_that_will_not_do",)},
    "JWT: somebody else's, anew, outlived": {
        "security.test_token_admission": (
            "test_a_token_of_somebody_else_than_the_user_name",
            "test_a_token_of_somebody_else_than_the_certificate",
            "test_nobody_is_named_anonymous",
            "test_wrong_tokens_without_a_user_name_ban_no_others_without_one",
        ),
        "security.test_token_clients": (
            "test_a_wrong_newer_token_ends_it",
            "test_the_connection_ends_with_its_token",
            "test_a_key_that_is_taken_away",
        ),
        "pump.test_correcting": ("test_what_somebody_authenticated_with_expires_when_it_should",),
    },
    "topics: $SYS and what is the broker's own": {
        "security.test_attack_topics": (
            "test_nobody_speaks_for_the_broker",
            "test_nor_as_a_last_word",
            "test_nor_by_a_topic_alias",
            "test_what_only_looks_like_it_is_not_its",
        ),
    },
    "topics: empty levels": {"security.test_attack_topics": ("test_empty_levels_are_levels",)},
    "topics: U+0000": {
        "wire.test_topics": ("test_bad_names", "test_bad_filters"),
        "pump.test_permissions": ("test_an_identity_with_a_nul_stays_out",),
    },
    "topics: overlong, deep": {
        "security.test_attack_topics": ("test_a_long_topic_costs_its_sender_and_nobody_else",),
    },
    "topics: wildcards in names": {
        "security.test_attack_topics": ("test_wildcards_in_the_names_of_clients_are_letters",),
        "security.test_acl": (
            "test_a_strange_name_allows_nothing_and_denies_more",
            "test_no_name_makes_a_denial_weaker_or_a_permission_wider",
        ),
    },
    "takeover of another's client identifier or session": {
        "security.test_attack_sessions": (
            "test_another_identity_gets_nothing_of_a_session",
            "test_nor_while_its_owner_waits_to_be_let_in",
            "test_nor_after_a_restart",
            "test_a_wrong_password_takes_nothing_over",
            "test_a_session_that_ended_may_be_anybodys_and_is_empty",
            "test_nobody_authenticates_anew_as_somebody_else",
            "test_a_message_for_a_session_reaches_no_successor_of_another_name",
        ),
    },
    "escalation by shared subscriptions": {
        "security.test_attack_topics": (
            "test_a_share_name_is_no_way_around_permissions",
            "test_half_a_shared_subscription_is_none",
        ),
        "pump.test_permissions": (
            "test_a_shared_subscription_goes_to_those_who_may",
            "test_what_an_ended_member_leaves_goes_to_one_who_may",
        ),
    },
    "escalation by wills": {
        "security.test_attack_sessions": (
            "test_a_will_is_no_way_around_permissions",
            "test_what_waits_with_a_will_is_its_owners_too",
        ),
        "pump.test_permissions": (
            "test_a_will_is_looked_at_when_it_is_left",
            "test_a_delayed_will_is_one_for_the_topic_behind_the_delay",
            "test_and_again_when_it_is_published",
        ),
    },
    "escalation by delay and by dead letters": {
        "security.test_attack_later": (
            "test_who_lost_a_permission_left_nothing_behind_that_uses_it",
            "test_nor_one_that_is_retained",
            "test_a_dead_letter_is_not_given_again_to_one_who_may_not_have_it_any_more",
            "test_dead_letters_are_read_by_those_who_are_allowed_them_by_name",
        ),
    },
    "retained messages that leak": {
        "security.test_attack_topics": ("test_what_was_retained_before_needs_permission_too",),
        "security.test_attack_later": (
            "test_a_retained_message_that_is_read_from_the_disk_meanwhile_is_asked_about_again",
        ),
        "pump.test_permissions": (
            "test_what_may_not_be_received_is_not_delivered_retained_or_live",
            "test_retained_messages_under_way_are_looked_at_again",
        ),
        "bridge.test_permissions": ("test_nor_when_it_takes_what_is_retained_here",),
    },
    "HTTP paths, smuggling, methods, tokens": {
        "security.test_attack_http": (
            "test_there_is_nothing_beside_what_there_is",
            "test_it_is_no_proxy_and_no_mirror",
            "test_one_connection_is_one_request_however_it_is_read",
            "test_a_head_is_bounded",
        ),
        "ops.test_http_protected": (
            "test_without_a_token_nothing_is_told",
            "test_only_a_path_as_it_is_written",
            "test_methods_that_are_not_offered",
            "test_scopes",
        ),
    },
    "decompression bombs": {
        "security.test_attack_floods": (
            "test_nothing_is_unpacked_over_websocket",
            "test_nothing_is_unpacked_over_http",
        ),
        "security.test_attack_tls": ("test_nothing_is_packed_and_no_protocol_is_made_up",),
        "net.test_websocket_pipe": ("test_nothing_is_compressed",),
    },
    "guessing": {
        "security.test_guessing": (
            "test_the_last_guess_that_is_one_too_many",
            "test_an_address_with_many_names",
            "test_each_answer_comes_later_than_the_one_before",
        ),
    },
    "floods": {
        "security.test_attack_floods": (
            "test_user_properties_are_counted",
            "test_a_connect_larger_than_one_may_be_is_refused_before_it_is_there",
            "test_a_ping_flood_of_the_size_of_a_packet_is_not_echoed_without_end",
        ),
    },
    "secrets where they do not belong": {
        "security.test_audited_actions": ("test_who_did_what",),
        "security.test_audit_log": ("test_a_day_in_the_life_of_a_broker",),
        "store.test_encryption": ("test_nothing_of_a_message_is_on_the_disk",),
        "security.test_files_watched": ("test_a_broken_one_is_refused_and_health_says_so",),
    },
}


@pytest.mark.parametrize("attack", ATTACKS)
def test_it_is_attempted(attack: str) -> None:
    for module, names in ATTACKS[attack].items():
        tests = vars(importlib.import_module(f"tests.{module}"))
        missing = [name for name in names if not callable(tests.get(name))]
        assert not missing, f"tests.{module} has no {missing}"
    assert any(ATTACKS[attack].values())

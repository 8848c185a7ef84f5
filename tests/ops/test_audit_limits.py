"""What a flood leaves out of the audit log, and how that is told."""

from __future__ import annotations

from edge_broker.ops.audit_limits import OTHERS, Allowed, AuditLimits, LeftOut


def limits(**allowed: Allowed) -> AuditLimits:
    return AuditLimits(allowed, lambda address: address.rpartition(":")[0] or address, 0.0)


def test_each_address_has_its_part_and_all_together_have_an_end() -> None:
    account = limits(refused=Allowed(5, 2))
    taken = [account.admit("refused", f"{host}:{port}") for host in "abcd" for port in (1, 2, 3)]
    assert taken == [True, True, False, True, True, False, True, False, False, False, False, False]
    assert account.end_window(59.0) == []
    assert account.end_window(60.0) == [
        LeftOut("refused", "d", 3),
        LeftOut("refused", "c", 2),
        LeftOut("refused", "a", 1),
        LeftOut("refused", "b", 1),
    ]
    assert account.admit("refused", "a:1")
    assert account.end_window(119.0) == []
    assert account.end_window(120.0) == [], "and nothing is told twice"


def test_kinds_do_not_share() -> None:
    account = limits(refused=Allowed(1, 1), denied=Allowed(1, 1))
    assert account.admit("refused", "a:1")
    assert account.admit("denied", "a:1")
    assert not account.admit("refused", "a:1")
    assert all(account.admit("action", "") for _ in range(1000)), "what is not in the list has no limit"


def test_only_the_worst_are_told_one_by_one() -> None:
    account = limits(refused=Allowed(0, 1), denied=Allowed(0, 1))
    for host in range(30):
        for _ in range(host + 1):
            account.admit("refused", f"{host}:1")
    account.admit("denied", "x:1")
    told = account.end_window(60.0)
    assert told[0] == LeftOut("refused", "29", 30)
    assert len(told) == 22
    assert told[-2:] == [LeftOut("refused", OTHERS, sum(range(2, 11)) + 1), LeftOut("denied", OTHERS, 1)][:2]
    assert sum(one.lines for one in told if one.event == "refused") == sum(range(1, 31))


def test_countless_addresses_take_bounded_memory_and_no_more_lines() -> None:
    account = limits(refused=Allowed(100_000, 1))
    taken = sum(account.admit("refused", f"{host}:1") for host in range(10_000))
    assert taken == 4_097, "those that have an account of their own, and one for all the others"
    assert len(account._by_address) == 4_097
    assert account.end_window(60.0) == [LeftOut("refused", OTHERS, 10_000 - 4_097)]

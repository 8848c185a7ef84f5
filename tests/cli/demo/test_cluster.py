"""The account that the demo keeps of what arrives."""

from __future__ import annotations

from edge_broker.cli.demo.cluster import Account


def test_what_arrives_once_and_in_order_is_in_order() -> None:
    account = Account()
    for sequence in (1, 2, 3):
        account.enter("a", sequence)
    assert (account.arrived, account.duplicates, account.out_of_order) == (3, 0, 0)
    assert account.missing({"a": 3}) == 0


def test_a_repetition_is_a_duplicate_and_no_disorder() -> None:
    account = Account()
    for sequence in (1, 2, 1, 2, 3):
        account.enter("a", sequence)
    assert (account.arrived, account.duplicates, account.out_of_order) == (3, 2, 0)


def test_a_new_reading_behind_a_later_one_is_out_of_order() -> None:
    account = Account()
    for sequence in (1, 3, 2):
        account.enter("a", sequence)
    assert account.out_of_order == 1


def test_each_device_has_its_own_numbers() -> None:
    account = Account()
    account.enter("a", 2)
    account.enter("b", 1)
    assert (account.out_of_order, account.duplicates) == (0, 0)
    assert account.missing({"a": 2, "b": 2, "c": 4}) == 1 + 1 + 4

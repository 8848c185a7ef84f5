"""The accountant sees what it must see: a loss, a duplicate, a wrong order; and nothing where there is nothing."""

from __future__ import annotations

from tests.torture.account import Reader, Stream, Verdict, judge


def a_stream(sent: int, qos: int = 1, acknowledged: int | None = None) -> Stream:
    stream = Stream(f"s{qos}", qos)
    for number in range(1, sent + 1):
        assert stream.next_number() == number
        if number <= (sent if acknowledged is None else acknowledged):
            stream.acknowledge(number, 1 + number // 10)
    return stream


def a_reader(stream: Stream, *numbers: int, owed: int = 1) -> Reader:
    reader = Reader("r", [stream])
    reader.owed[stream.name] = owed
    for number in numbers:
        reader.take(stream.name, number)
    return reader


def verdict_on(stream: Stream, *numbers: int) -> Verdict:
    return judge([stream], [a_reader(stream, *numbers)], Verdict(rounds=1))


def test_all_is_well() -> None:
    for qos in (1, 2):
        verdict = verdict_on(a_stream(5, qos), 1, 2, 3, 4, 5)
        assert verdict.kept_its_promise
        assert (verdict.acknowledged, verdict.delivered) == (5, 5)


def test_a_loss_is_known_by_reader_stream_and_round() -> None:
    stream = a_stream(25)
    verdict = verdict_on(stream, *range(1, 9), *range(11, 26))
    assert not verdict.kept_its_promise
    assert dict(verdict.lost) == {"r of s1": 2}
    assert verdict.lost_in_rounds == {1, 2}  # 9 and 10
    assert list(a_reader(stream, *range(1, 9), *range(11, 26)).lost_lines()) == [
        "r lacks 2 of s1, from 9 to 10, acknowledged in round 1 to 2"
    ]
    assert "lost by r of s1: 2" in verdict.lines()


def test_what_was_not_acknowledged_is_not_owed() -> None:
    assert verdict_on(a_stream(5, acknowledged=3), 1, 2, 3).kept_its_promise
    assert not verdict_on(a_stream(5, acknowledged=4), 1, 2, 3).kept_its_promise


def test_what_came_before_or_after_its_time_is_not_owed() -> None:
    stream = a_stream(10)
    reader = a_reader(stream, 8, 9, 10, 5, owed=8)
    reader.leave()
    for number in (11, 12):
        stream.next_number()
        stream.acknowledge(number, 9)
    assert judge([stream], [reader], Verdict()).kept_its_promise
    reader.owed["s1"] = 7
    assert judge([stream], [reader], Verdict()).lost_messages == 1


def test_twice_is_wrong_at_qos_2_only() -> None:
    at_1, at_2 = verdict_on(a_stream(3, 1), 1, 2, 2, 3, 1), verdict_on(a_stream(3, 2), 1, 2, 2, 3, 1)
    assert at_1.kept_its_promise
    assert at_1.repeated == 2
    assert not at_2.kept_its_promise
    assert (at_2.duplicates, at_2.repeated) == (2, 0)


def test_a_first_arrival_out_of_order_is_wrong() -> None:
    verdict = verdict_on(a_stream(4), 1, 3, 2, 4)
    assert not verdict.kept_its_promise
    assert verdict.late == ["r: 2 of s1 behind 3"]
    assert verdict_on(a_stream(4), 1, 2, 3, 4, 2, 3, 4).kept_its_promise, "a repetition is not"


def test_everything_else_that_breaks_the_promise() -> None:
    for broken in (
        Verdict(forgotten=1),
        Verdict(retained_lost=1),
        Verdict(unsound=["structure: rubbish"]),
        Verdict(stuck=["round 3: not everything arrives"]),
    ):
        assert not broken.kept_its_promise
    assert Verdict().kept_its_promise

from devices.protocol_choice import ProtocolChoice


def test_version_5_that_works_is_kept_through_silence() -> None:
    choice = ProtocolChoice()
    assert choice.version == "5"
    assert choice.connected()
    for _ in range(5):
        assert not choice.unanswered()
        assert choice.version == "5"


def test_a_refusal_settles_it_at_once() -> None:
    choice = ProtocolChoice()
    assert choice.refused_version()
    assert choice.version == "3.1.1"
    assert choice.connected()
    assert not choice.refused_version()


def test_silence_settles_it_only_beside_an_answer_to_3_1_1() -> None:
    choice = ProtocolChoice()
    assert choice.unanswered()
    assert choice.version == "3.1.1"
    assert not choice.connected()  # alive: so once more
    assert choice.version == "5"
    assert choice.unanswered()
    assert choice.version == "3.1.1"
    assert choice.connected()  # sure now


def test_a_broker_that_was_starting_turns_out_to_speak_5() -> None:
    choice = ProtocolChoice()
    choice.unanswered()
    assert not choice.connected()
    assert choice.version == "5"
    assert choice.connected()
    assert not choice.unanswered()
    assert choice.version == "5"


def test_silence_to_both_begins_anew_after_a_pause() -> None:
    choice = ProtocolChoice()
    assert choice.unanswered()
    assert not choice.unanswered()
    assert choice.version == "5"
    assert choice.unanswered()
    assert not choice.connected()
    assert choice.unanswered()
    assert choice.connected()
    assert not choice.unanswered()  # the settled one is silent: it may have been replaced by a newer
    assert choice.version == "5"


def test_a_pinned_version_stays() -> None:
    for version in ("5", "3.1.1"):
        choice = ProtocolChoice(version)  # type: ignore[arg-type]
        assert not choice.refused_version()
        assert not choice.unanswered()
        assert choice.connected()
        assert choice.version == version

"""Child processes of `fairtune up` that end by themselves start again, with growing pauses."""

from service.cli.up import Restarts


def test_a_process_that_was_killed_starts_again_at_once():
    restarts = Restarts(0.0)
    assert restarts.ended(1000.0) == 1.0
    assert restarts.ended(2000.0) == 1.0


def test_the_pause_grows_while_it_fails_at_once_and_then_it_is_given_up():
    restarts = Restarts(0.0)
    now, pauses = 0.0, []
    while (pause := restarts.ended(now + 1.0)) is not None:
        now += 1.0 + pause
        pauses.append(pause)
    assert pauses == [2.0, 4.0, 8.0, 16.0]


def test_a_long_life_makes_up_for_earlier_failures():
    restarts = Restarts(0.0)
    assert [restarts.ended(1.0), restarts.ended(4.0)] == [2.0, 4.0]
    assert restarts.ended(500.0) == 1.0
    assert [restarts.ended(502.0), restarts.ended(505.0)] == [2.0, 4.0]

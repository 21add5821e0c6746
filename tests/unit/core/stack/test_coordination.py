"""Claims, leases and wakes on a real Redis."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator

import pytest
from servers import RedisServer

from edgejoule.stack.coordination import Changed, Coordination, Damaged, Ended, Progress, Standing, Timing

KEY, OTHER = "a" * 64, "b" * 64
QUICK = Timing(claim_s=5.0, lease_s=0.2, leader_s=0.2)


@pytest.fixture
def coordination(redis_server: RedisServer) -> Iterator[Coordination]:
    redis_server.client().flushall()
    coordination = Coordination(redis_server.url, QUICK)
    yield coordination
    coordination.close()


def lapse() -> None:
    time.sleep(QUICK.lease_s + 0.05)


def test_claim_is_given_once(coordination: Coordination) -> None:
    assert coordination.claim({KEY: "m1", OTHER: "m2"}) == [KEY, OTHER]
    assert coordination.claim({KEY: "m3"}) == []
    assert coordination.standings([KEY]) == {KEY: Standing("m1", None)}


def test_lease_takes_the_place_of_the_claim(coordination: Coordination) -> None:
    coordination.claim({KEY: "m1"})

    assert coordination.take(KEY, "m1", "holder")
    assert coordination.standings([KEY]) == {KEY: Standing(None, "holder")}


@pytest.mark.parametrize("message", ["m0", ""])
def test_message_that_stands_for_nothing_gives_no_lease(coordination: Coordination, message: str) -> None:
    coordination.claim({KEY: "m1"})

    assert not coordination.take(KEY, message, "holder")
    assert not coordination.take(OTHER, message, "holder")
    assert coordination.standings([KEY, OTHER]) == {KEY: Standing("m1", None), OTHER: Standing(None, None)}


def test_one_of_many_takers_gets_the_lease(coordination: Coordination) -> None:
    coordination.claim({KEY: "m1"})
    got: list[str] = []
    start = threading.Barrier(8)

    def take(name: str) -> None:
        start.wait()
        if coordination.take(KEY, "m1", name):
            got.append(name)

    threads = [threading.Thread(target=take, args=(f"w{n}",)) for n in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()

    assert len(got) == 1
    assert coordination.standings([KEY])[KEY].holder == got[0]


def test_message_for_a_step_that_is_held_is_dropped_with_its_claim(coordination: Coordination) -> None:
    coordination.claim({KEY: "m1"})
    coordination.take(KEY, "m1", "holder")
    coordination.claim({KEY: "m2"})

    assert not coordination.take(KEY, "m2", "another")
    assert coordination.standings([KEY]) == {KEY: Standing(None, "holder")}


def test_lease_ends_by_itself_unless_renewed(coordination: Coordination) -> None:
    coordination.claim({KEY: "m1", OTHER: "m2"})
    coordination.take(KEY, "m1", "holder")
    coordination.take(OTHER, "m2", "holder")
    for _ in range(3):
        time.sleep(QUICK.lease_s / 2)
        assert coordination.renew(KEY, "holder") == "held"

    assert coordination.standings([KEY, OTHER]) == {KEY: Standing(None, "holder"), OTHER: Standing(None, None)}


def test_lease_that_was_lost_from_redis_is_held_again(coordination: Coordination) -> None:
    coordination.claim({KEY: "m1"})
    coordination.take(KEY, "m1", "holder")
    lapse()

    assert coordination.renew(KEY, "holder") == "held"
    assert coordination.standings([KEY])[KEY].holder == "holder"


def test_holder_learns_that_another_holds_its_lease_and_cannot_release_it(coordination: Coordination) -> None:
    coordination.claim({KEY: "m1"})
    coordination.take(KEY, "m1", "sleeper")
    lapse()
    coordination.claim({KEY: "m2"})
    coordination.take(KEY, "m2", "successor")

    assert coordination.renew(KEY, "sleeper") == "lost"
    coordination.release(KEY, "sleeper", Ended(key=KEY))
    assert coordination.standings([KEY])[KEY].holder == "successor"
    assert coordination.wakes(0) == []


def test_release_tells_the_conductor_and_leaves_nothing(coordination: Coordination) -> None:
    coordination.claim({KEY: "m1"})
    coordination.take(KEY, "m1", "holder")
    coordination.tell_progress(KEY, Progress(worker="w", done=1, total=2))
    assert coordination.progress([KEY, OTHER])[KEY].done == 1
    coordination.release(KEY, "holder", Damaged(key=KEY, blob=OTHER, reason="why"))

    assert coordination.wakes(1) == [Damaged(key=KEY, blob=OTHER, reason="why")]
    assert coordination.left_over() == []
    assert coordination.progress([KEY]) == {}


def test_cancelled_step_is_not_started_and_its_holder_is_told(coordination: Coordination) -> None:
    coordination.claim({KEY: "m1", OTHER: "m2"})
    coordination.take(KEY, "m1", "holder")
    coordination.cancel(KEY)
    coordination.cancel(OTHER)

    assert coordination.renew(KEY, "holder") == "cancelled"
    assert not coordination.take(OTHER, "m2", "holder")
    coordination.release(KEY, "holder", Ended(key=KEY))
    assert coordination.left_over() == []


def test_cancelled_step_can_be_claimed_anew(coordination: Coordination) -> None:
    coordination.claim({KEY: "m1"})
    coordination.take(KEY, "m1", "holder")
    coordination.cancel(KEY)
    coordination.claim({KEY: "m2"})

    assert coordination.renew(KEY, "holder") == "held"


def test_wakes_come_in_order_and_what_nobody_of_ours_says_comes_as_text(
    coordination: Coordination, redis_server: RedisServer
) -> None:
    coordination.wake(Changed(run="one"))
    redis_server.client().rpush("edgejoule:wake", "{", '{"key": "../x"}')
    coordination.wake(Ended(key=KEY))

    assert coordination.wakes(1) == [Changed(run="one"), "{", '{"key": "../x"}', Ended(key=KEY)]


def test_one_conductor_leads_until_it_is_silent(coordination: Coordination) -> None:
    assert coordination.lead("first")
    assert not coordination.lead("second")
    assert coordination.lead("first")
    time.sleep(QUICK.leader_s + 0.05)
    assert coordination.lead("second")
    assert not coordination.lead("first")
    coordination.stop_leading("first")
    assert not coordination.lead("first")
    coordination.stop_leading("second")
    assert coordination.lead("first")


def test_flush_is_noticed_once(coordination: Coordination, redis_server: RedisServer) -> None:
    coordination.was_flushed()
    assert not coordination.was_flushed()
    redis_server.client().flushall()
    assert coordination.was_flushed()
    assert not coordination.was_flushed()


def test_standings_of_many_steps_are_asked_in_batches(coordination: Coordination) -> None:
    keys = [f"{number:064x}" for number in range(2500)]
    coordination.claim({key: key[:8] for key in keys[::2]})
    standings = coordination.standings(keys)

    assert [key for key, standing in standings.items() if standing.known] == keys[::2]

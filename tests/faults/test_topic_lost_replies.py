"""The reply of each request of a topic lost in turn: each message is stored once, and read once, and the truth is told.

Sessions are long, so that no heartbeat is taken for one of these requests.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor

import pytest

import zkrecipes as zkr
from tests.faults.contest import linger
from zkrecipes.testing import FaultProxy, Server, Trap, wait_until

SESSION = 30.0
LIMIT = 20.0
PATH = "/topic"

Gap = tuple[zkr.Position, zkr.Position]
"""The first that is missing, and where it went on."""


@pytest.fixture
def proxy(zkr_server: Server) -> Iterator[FaultProxy]:
    with FaultProxy(zkr_server) as proxy:
        yield proxy


@pytest.fixture
def zk(proxy: FaultProxy, zkr_namespace: str) -> Iterator[zkr.Client]:
    with zkr.connect(proxy.hosts, namespace=zkr_namespace, session_timeout=SESSION) as client:
        yield client


@pytest.fixture
def witness(zkr_server: Server, zkr_namespace: str) -> Iterator[zkr.Topic]:
    """The topic, for a client that no fault touches."""
    with zkr.connect(zkr_server.hosts, namespace=zkr_namespace, session_timeout=SESSION) as client:
        yield zkr.Topic(client, PATH, segment_size=1000)


def _stored(witness: zkr.Topic) -> dict[zkr.Position, bytes]:
    """All messages that are there, and no further one comes."""
    found: dict[zkr.Position, bytes] = {}
    with witness.subscribe("witness", start="earliest", durable=False) as tail:
        while True:
            try:
                message = tail.receive(0.5)
            except zkr.AcquireTimeoutError:
                return found
            found[message.position] = message.value


def _fired(trap: Trap) -> bool:
    fired = trap.fired
    trap.disarm()
    return fired


# --- publish ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("how", ["plain", "with an id", "many", "second"])
def test_a_publish_whose_reply_is_lost_is_stored_once_and_told_where(
    proxy: FaultProxy, zk: zkr.Client, witness: zkr.Topic, how: str
) -> None:
    topic = zkr.Topic(zk, PATH)
    witness.publish(b"before")
    expected = [b"before"]
    if how != "plain":
        topic.publish(b"first", message_id="first")  # makes what its client needs
        expected.append(b"first")
    trap = proxy.drop_reply("multi")
    match how:
        case "with an id":
            told = [topic.publish(b"x", message_id="id")]
        case "many":
            told = topic.publish_many([b"x", b"y", b"z"])
        case _:
            told = [topic.publish(b"x")]
    trap.wait()
    stored = _stored(witness)
    assert list(stored.values()) == [*expected, *[b"x", b"y", b"z"][: len(told)]]
    assert list(stored)[len(expected) :] == told


@pytest.mark.parametrize("message_id", [None, "id"])
@pytest.mark.parametrize(
    "lost",
    [*itertools.product(["create2", "exists", "getData"], [1, 2, 3]), *itertools.product(["multi"], [1, 2, 3])],
    ids=str,
)
def test_the_first_publish_of_all(
    proxy: FaultProxy, zk: zkr.Client, witness: zkr.Topic, lost: tuple[str, int], message_id: str | None
) -> None:
    """It makes the topic, and everything that this needs."""
    trap = proxy.drop_reply(*lost)
    told = zkr.Topic(zk, PATH).publish(b"x", message_id=message_id, timeout=LIMIT)
    fired = _fired(trap)
    assert fired or lost not in {("create2", 1), ("exists", 1), ("multi", 1), ("multi", 2)}
    assert _stored(witness) == {told: b"x"}
    assert zkr.Topic(zk, PATH).publish(b"again", message_id="id") == (told if message_id else told.following)


@pytest.mark.parametrize("lost", range(1, 8))
def test_publishes_over_the_border_of_a_segment(
    proxy: FaultProxy, zk: zkr.Client, witness: zkr.Topic, lost: int
) -> None:
    """One of these writes begins the next segment."""
    topic = zkr.Topic(zk, PATH, segment_size=2)
    topic.publish(b"0")
    trap = proxy.drop_reply("multi", lost)
    told = [topic.publish(b"%d" % number) for number in range(1, 7)]
    trap.wait()
    stored = _stored(witness)
    assert list(stored.values()) == [b"%d" % number for number in range(7)]
    assert list(stored)[1:] == told
    for segment in {position.segment for position in stored}:
        indices = [position.index for position in stored if position.segment == segment]
        assert indices == list(range(len(indices)))


@pytest.mark.parametrize("where", ["request", "reply"])
def test_a_publish_that_could_not_be_settled_in_time_is_unknown_and_is_never_taken_back(
    proxy: FaultProxy, zk: zkr.Client, witness: zkr.Topic, where: str
) -> None:
    topic = zkr.Topic(zk, PATH)
    topic.publish(b"before")
    gate = proxy.hold_request("multi") if where == "request" else proxy.hold_reply("multi")
    with pytest.raises(zkr.OutcomeUnknownError):
        topic.publish(b"x", timeout=0.5)
    gate.release()
    linger(0.3)
    assert list(_stored(witness).values()) == [b"before", b"x"]
    topic.publish(b"behind", timeout=LIMIT)
    assert list(_stored(witness).values()) == [b"before", b"x", b"behind"]


def test_a_publish_that_was_never_sent_has_failed_and_never_appears(
    proxy: FaultProxy, zk: zkr.Client, witness: zkr.Topic
) -> None:
    topic = zkr.Topic(zk, PATH)
    topic.publish(b"before")
    proxy.refuse()
    wait_until(lambda: not zk.health().ok, LIMIT, "the client has noticed")
    with pytest.raises(zkr.UnavailableError):
        topic.publish(b"x", timeout=0.5)
    proxy.heal()
    wait_until(lambda: zk.health().ok, LIMIT, "it is back")
    linger(0.3)
    assert list(_stored(witness).values()) == [b"before"]


def test_publishers_at_once_whose_connection_breaks_again_and_again(
    proxy: FaultProxy, zk: zkr.Client, witness: zkr.Topic
) -> None:
    """Every message that was told as stored is there once, where it was told to be."""
    topic = zkr.Topic(zk, PATH, segment_size=40)
    topic.publish(b"first")

    def work(number: int) -> dict[zkr.Position, bytes]:
        return {topic.publish(value, timeout=LIMIT): value for value in (b"%d-%d" % (number, n) for n in range(40))}

    with ThreadPoolExecutor(4) as pool:
        running = [pool.submit(work, number) for number in range(4)]
        while not all(each.done() for each in running):
            linger(0.2)
            proxy.cut()
        told = {position: value for each in running for position, value in each.result().items()}
    stored = _stored(witness)
    del stored[zkr.Position(0, 0)]
    assert stored == dict(sorted(told.items()))
    assert len(told) == 160


# --- subscribe, receive, acknowledge ----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "lost", [*itertools.product(["create2", "getChildren", "getData", "exists", "multi"], [1, 2])], ids=str
)
def test_a_new_subscription_begins_where_it_was_told_to(
    proxy: FaultProxy, zk: zkr.Client, witness: zkr.Topic, lost: tuple[str, int]
) -> None:
    for number in range(3):
        witness.publish(b"%d" % number)
    trap = proxy.drop_reply(*lost)
    with zkr.Topic(zk, PATH).subscribe("audit", start="latest", timeout=LIMIT) as audit:
        witness.publish(b"3")
        assert audit.receive(LIMIT).value == b"3"
        _fired(trap)
    with zkr.Topic(zk, PATH).subscribe("audit", start="earliest") as audit:
        assert audit.receive(LIMIT).value == b"3"
        with pytest.raises(zkr.AcquireTimeoutError):
            audit.receive(0.3)


@pytest.mark.parametrize(
    ("operation", "lost", "persistent"),
    [
        *((operation, lost, True) for operation in ("getData", "multiRead") for lost in range(1, 6)),
        ("addWatch", 1, True),
        ("exists", 1, True),
        *(("exists", lost, False) for lost in range(1, 6)),
    ],
)
def test_a_reader_misses_nothing_and_sees_nothing_twice(  # noqa: PLR0917 - fixtures, and what is lost
    proxy: FaultProxy,
    zk: zkr.Client,
    witness: zkr.Topic,
    operation: str,
    lost: int,
    persistent: bool,  # noqa: FBT001 - a parameter
) -> None:
    zk.core.session.watches.recursive = persistent
    for number in range(30):
        witness.publish(b"%d" % number)
    with zkr.Topic(zk, PATH).subscribe("audit", start="earliest") as audit:
        trap = proxy.drop_reply(operation, lost)
        seen = [int(audit.receive(LIMIT).value) for _ in range(30)]
        with pytest.raises(zkr.AcquireTimeoutError):
            audit.receive(0.3)  # from here on it looks ahead
        # How many of these requests a message costs depends on which comes first, the message or the look ahead.
        while len(seen) < 40 or (not trap.fired and operation != "multiRead" and len(seen) < 60):
            witness.publish(b"%d" % len(seen))
            seen.append(int(audit.receive(LIMIT).value))
            if len(seen) >= 40:
                with pytest.raises(zkr.AcquireTimeoutError):
                    audit.receive(0.3)
        fired = _fired(trap)
        assert fired or operation == "multiRead"
        assert seen == list(range(len(seen)))
        with pytest.raises(zkr.AcquireTimeoutError):
            audit.receive(0.3)


def test_an_acknowledgement_whose_reply_is_lost_counts(proxy: FaultProxy, zk: zkr.Client, witness: zkr.Topic) -> None:
    for number in range(6):
        witness.publish(b"%d" % number)
    with zkr.Topic(zk, PATH).subscribe("audit", start="earliest") as audit:
        messages = [audit.receive(LIMIT) for _ in range(4)]
        trap = proxy.drop_reply("multi")
        messages[2].ack()
        trap.wait()
        assert audit.acknowledged == messages[3].position
        assert [int(audit.receive(LIMIT).value) for _ in range(2)] == [4, 5]
    with witness.subscribe("audit") as audit:
        assert audit.receive(LIMIT).value == b"3"


@pytest.mark.parametrize("where", ["request", "reply"])
def test_an_acknowledgement_that_could_not_be_settled_is_unknown(
    proxy: FaultProxy, zk: zkr.Client, witness: zkr.Topic, where: str
) -> None:
    for number in range(4):
        witness.publish(b"%d" % number)
    with zkr.Topic(zk, PATH).subscribe("audit", start="earliest") as audit:
        messages = [audit.receive(LIMIT) for _ in range(3)]
        gate = proxy.hold_request("multi") if where == "request" else proxy.hold_reply("multi")
        with pytest.raises(zkr.OutcomeUnknownError):
            messages[0].ack(timeout=0.5)
        gate.release()
        messages[1].ack(timeout=LIMIT)
        assert audit.acknowledged == messages[2].position


# --- trim -------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "lost",
    [*itertools.product(["multi", "getChildren", "getData"], range(1, 6)), ("create2", 1), ("delete", 1)],
    ids=str,
)
def test_a_trim_whose_reply_is_lost_removes_what_it_says(
    proxy: FaultProxy, zk: zkr.Client, witness: zkr.Topic, lost: tuple[str, int]
) -> None:
    topic = zkr.Topic(zk, PATH, segment_size=4)
    told = [topic.publish(b"%d" % number) for number in range(12)]
    with topic.subscribe("audit", start=told[9]):
        pass
    trap = proxy.drop_reply(*lost)
    assert topic.trim(before=told[7], timeout=LIMIT) == told[7]
    fired = _fired(trap)
    assert fired or lost[1] > 1 or lost[0] == "delete"
    assert _stored(witness) == {position: b"%d" % (7 + n) for n, position in enumerate(told[7:])}
    assert topic.trim(before="latest", timeout=LIMIT) == told[9]
    assert topic.publish(b"12") > told[-1]
    _nobody_trims(witness)


def _nobody_trims(witness: zkr.Topic) -> None:
    """No place in the line is left: somebody else has it at once."""
    witness.trim(keep=1000, timeout=LIMIT)


def test_a_reader_is_told_of_each_message_or_gap_while_replies_are_lost(
    proxy: FaultProxy, zk: zkr.Client, witness: zkr.Topic
) -> None:
    free = zkr.Topic(zk, PATH, segment_size=3, retention=zkr.Retention(keep_for_durable=False))
    told: list[zkr.Position] = []
    seen: list[zkr.Position] = []
    gaps: list[Gap] = []

    def step(number: int) -> None:
        told.append(free.publish(b"%d" % number, timeout=LIMIT))
        if number % 7 == 6:
            free.trim(keep=3, timeout=LIMIT)
        if number % 3 == 0:
            _read_some(lambda: tail.receive(0.05), seen, gaps)

    with witness.subscribe("tail", start="earliest", durable=False) as tail:
        for number in range(60):
            if number % 5 == 0:
                proxy.drop_reply("any write", 1 + number % 4)
            step(number)
        while not seen or seen[-1] != told[-1]:
            _read_some(lambda: tail.receive(LIMIT), seen, gaps)
    assert seen == sorted(set(seen))
    missing = sorted(set(told) - set(seen))
    assert missing, "the trimmer was quicker now and then"
    for position in missing:
        assert any(first <= position < resumed for first, resumed in gaps), f"{position} is missing: {gaps}"
    for first, resumed in gaps:
        assert not any(first <= position < resumed for position in seen)


def _read_some(receive: Callable[[], zkr.Message], seen: list[zkr.Position], gaps: list[Gap]) -> None:
    try:
        seen.append(receive().position)
    except zkr.GapError as error:
        if error.first_missing is None or error.resumed_at is None:
            raise
        gaps.append((error.first_missing, error.resumed_at))
    except zkr.AcquireTimeoutError:
        pass

"""Roll-out: some instances first, then all; and back at the first refusal."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from typing import Any

import pytest

import zkrecipes as zkr
from tests.integration.config.models import PATH, Settings, first_release, reaches, settings
from zkrecipes.testing import FaultProxy, Server, wait_until

SOME = zkr.Canary(labels={"zone": "a"})


@pytest.fixture
def pair(zkr_client: zkr.Client) -> Iterator[tuple[zkr.Config[Settings], zkr.Config[Settings]]]:
    """One instance in zone a, which takes canaries, and one in zone b."""
    first_release(zkr_client, settings(1))
    with (
        zkr.Config(zkr_client, PATH, Settings, instance=zkr.Instance("one", {"zone": "a"})) as one,
        zkr.Config(zkr_client, PATH, Settings, instance=zkr.Instance("two", {"zone": "b"})) as two,
    ):
        yield one, two


Pair = tuple[zkr.Config[Settings], zkr.Config[Settings]]


def test_promoted(pair: Pair) -> None:
    one, two = pair
    sizes: list[int] = []
    one.on_change("database.pool_size")(lambda change: sizes.append(change.new))
    release = two.publish(settings(2), reason="try", canary=SOME)
    assert release.source == "canary"
    one.wait_for(lambda current: current.database.pool_size == 2, 5)
    assert one.canary == release.id
    assert one.source_of("database.pool_size") == f"canary:{release.id}"
    assert two.current.database.pool_size == 1
    wait_until(lambda: {each.canary for each in two.status().instances} == {None, release.id}, 5, "it is reported")
    status = two.status()
    assert status.canary is not None
    assert (status.canary.id, status.canary.reason, status.canary.base) == (release.id, "try", 0)
    assert [(each.id, each.labels, each.accepted) for each in status.instances] == [
        ("one", {"zone": "a"}, True),
        ("two", {"zone": "b"}, True),
    ]
    promoted = two.promote()
    assert (promoted.version, promoted.source, promoted.reason) == (1, "promote", "try")
    reaches(one, 1)
    reaches(two, 1)
    assert two.current.database.pool_size == 2
    assert one.canary is None
    assert sizes == [2], "not back and forth"
    assert two.status().canary is None
    assert two.status().last == zkr.EndedCanary(release.id, 0, "promoted")


def test_aborted(pair: Pair) -> None:
    one, two = pair
    two.publish(settings(2), canary=SOME)
    one.wait_for(lambda current: current.database.pool_size == 2, 5)
    assert two.status().last is None
    two.abort(reason="too slow")
    last = two.status().last
    assert last is not None
    assert (last.base, last.how.endswith(": too slow"), last.how.startswith("aborted by ")) == (0, True, True)
    one.wait_for(lambda current: current.database.pool_size == 1, 5)
    assert one.canary is None
    with pytest.raises(zkr.NodeNotFoundError, match="no canary"):
        two.promote()
    with pytest.raises(zkr.NodeNotFoundError, match="no canary"):
        two.abort()
    two.publish(settings(3))
    reaches(one, 1)


def test_the_first_refusal_aborts_it(pair: Pair) -> None:
    one, two = pair
    rejected: list[zkr.Rejection] = []

    @one.on_prepare
    def prepare(change: zkr.ConfigChange[Settings]) -> None:
        if change.new.database.pool_size > 1:
            message = "too many"
            raise zkr.VetoError(message)

    one.on_rejected(rejected.append)
    release = two.publish(settings(2), canary=SOME)
    wait_until(lambda: two.status().canary is None, 10, "the canary is aborted")
    wait_until(lambda: rejected, 5, "and told")
    assert (rejected[0].canary, rejected[0].veto) == (release.id, True)
    assert one.current.database.pool_size == 1
    wait_until(lambda: one.health().ok, 5, "all is well with the document")
    assert "too many" in str(rejected[0])


def test_a_refusal_is_told_once_whatever_canary_others_take(pair: Pair, zkr_client: zkr.Client) -> None:
    one, two = pair
    rejected: list[zkr.Rejection] = []
    two.on_rejected(rejected.append)
    zkr_client.set(PATH, b'{"database": {"pool_size": 0}}')
    wait_until(lambda: rejected, 5, "it is told")
    one.publish(settings(2), canary=SOME)
    one.wait_for(lambda current: current.database.pool_size == 2, 5)
    one.abort()
    one.wait_for(lambda current: current.database.pool_size == 1, 5)
    zkr_client.set(PATH, b'{"name": "good"}')
    two.wait_for(lambda current: current.name == "good", 5)
    assert [each.version for each in rejected] == [1]


def test_aborted_on_a_document_that_is_refused(pair: Pair, zkr_client: zkr.Client) -> None:
    """What a canary was to replace cannot be in force either: back to what was in force before it."""
    one, two = pair
    zkr_client.set(PATH, b'{"database": {"pool_size": 0}}')
    wait_until(lambda: one.rejection is not None and two.rejection is not None, 5, "it is refused")
    before, told = one.current, list[tuple[int, int]]()
    one.on_change("database.pool_size")(lambda change: told.append((change.old, change.new)))
    two.publish(settings(2), canary=SOME)
    one.wait_for(lambda current: current.database.pool_size == 2, 5)
    assert (one.rejection, one.version) == (None, 1)
    two.abort()
    one.wait_for(lambda current: current.database.pool_size == 1, 5)
    assert one.current is before
    assert (one.version, one.canary, one.source_of("database.pool_size")) == (0, None, f"node:{PATH}")
    assert one.health().reason.endswith("version 0 stays")
    wait_until(lambda: told == [(1, 2), (2, 1)], 5, "there and back are told")
    wait_until(
        lambda: (
            [(each.version, each.canary, each.accepted) for each in two.status().instances] == [(0, None, False)] * 2
        ),
        5,
        "it is reported",
    )
    two.publish(settings(3))
    reaches(one, 2)
    assert one.health().ok


def test_the_way_back_may_be_vetoed(pair: Pair, zkr_client: zkr.Client) -> None:
    """One outcome, and told: the canary stays in force where it was, until there is something better."""
    one, two = pair

    @one.on_prepare
    def only_up(change: zkr.ConfigChange[Settings]) -> None:
        if change.new.database.pool_size < change.old.database.pool_size:
            message = "this machine cannot shrink it"
            raise zkr.VetoError(message)

    release = two.publish(settings(2), canary=SOME)
    one.wait_for(lambda current: current.database.pool_size == 2, 5)
    two.abort()
    wait_until(lambda: one.rejection is not None, 5, "the document is refused")
    assert one.current.database.pool_size == 2
    assert one.health().reason == (
        f"version 0 was vetoed: this machine cannot shrink it; the canary {release.id}, which has ended, stays"
    )
    two.publish(settings(3))
    reaches(one, 1)
    assert one.health().ok


def test_who_refuses_reports_why(zkr_client: zkr.Client) -> None:
    first_release(zkr_client)
    with zkr.Config(zkr_client, PATH, Settings, instance=zkr.Instance("me")) as config:
        zkr_client.set(PATH, b'{"database": {"pool_size": 0}}')

        def told() -> bool:
            return [
                ("pool_size" in (status.error or ""), status.accepted, status.version)
                for status in config.status().instances
            ] == [(True, False, 0)]

        wait_until(told, 5, "the refusal is reported")


def test_publishing_during_a_canary_is_a_conflict(pair: Pair) -> None:
    _, two = pair
    two.publish(settings(2), canary=SOME)
    with pytest.raises(zkr.ConflictError, match="canary"):
        two.publish(settings(3))
    with pytest.raises(zkr.ConflictError, match="canary"):
        two.publish(settings(3), canary=zkr.Canary(percent=1))
    with pytest.raises(zkr.ConflictError, match="canary"):
        two.rollback(0)
    assert [release.version for release in two.history()] == [0]


def test_a_canary_that_came_in_between_is_a_conflict(
    zkr_proxy: FaultProxy, zkr_client: zkr.Client, zkr_server: Server, zkr_namespace: str
) -> None:
    """The publisher has looked, and found no canary; it begins before the release is written."""
    first_release(zkr_client)
    gate = zkr_proxy.hold_request("multi")
    failed: list[BaseException] = []

    def publish() -> None:
        try:
            zkr.Config(zkr_client, PATH, Settings).publish(settings(2))
        except zkr.ConflictError as error:
            failed.append(error)

    thread = threading.Thread(target=publish)
    thread.start()
    gate.wait_held()
    with zkr.connect(zkr_server.hosts, namespace=zkr_namespace) as other:
        zkr.Config(other, PATH, Settings).publish(settings(3), canary=SOME)
        gate.release()
        thread.join(10)
        assert "canary" in str(failed[0])
        assert other.get(PATH).stat.version == 0


def test_a_document_that_moved_cannot_be_promoted(pair: Pair, zkr_client: zkr.Client) -> None:
    one, two = pair
    two.publish(settings(2), canary=SOME)
    one.wait_for(lambda current: current.database.pool_size == 2, 5)
    zkr_client.set(PATH, b'{"name": "by hand"}')
    one.wait_for(lambda current: current.name == "by hand", 5)
    with pytest.raises(zkr.ConflictError, match="abort"):
        two.promote()
    two.abort()
    two.publish(settings(4))


def test_a_late_abort_does_not_end_the_next_canary(pair: Pair, zkr_client: zkr.Client) -> None:
    """Both have the same path and version; the mark tells them apart."""
    from zkrecipes.config_records import decode_canary  # noqa: PLC0415
    from zkrecipes.timing import Deadline  # noqa: PLC0415

    _, two = pair
    two.publish(settings(2), canary=SOME)
    old = decode_canary(zkr_client.get(f"{PATH}-canary").value, PATH)
    two.abort()
    second = two.publish(settings(3), canary=SOME)
    late = two._publisher.end_canary(old, "late", Deadline.after(5.0, zkr_client.core.runtime.now()))
    assert zkr_client.run(late) is False
    status = two.status()
    assert status.canary is not None
    assert status.canary.id == second.id


@pytest.mark.parametrize("verb", ["begin", "promote", "abort"])
def test_lost_replies(zkr_proxy: FaultProxy, zkr_client: zkr.Client, verb: str) -> None:
    first_release(zkr_client, settings(1))
    config = zkr.Config(zkr_client, PATH, Settings)
    if verb != "begin":
        config.publish(settings(2), canary=SOME)
    trap = zkr_proxy.drop_reply("multi")
    match verb:
        case "begin":
            release = config.publish(settings(2), canary=SOME)
            canary = config.status().canary
            assert canary is not None
            assert canary.id == release.id
        case "promote":
            assert config.promote().version == 1
            assert zkr_client.get(PATH).stat.version == 1
            assert config.status().canary is None
        case _:
            config.abort()
            assert config.status().canary is None
            assert zkr_client.get(PATH).stat.version == 0
    assert trap.fired


def test_the_share_of_instances() -> None:
    from zkrecipes.config_types import selects  # noqa: PLC0415

    ids = [f"host-{number}" for number in range(2000)]
    taken = {percent: {each for each in ids if selects(zkr.Canary(percent=percent), zkr.Instance(each))}
             for percent in (0, 10, 50, 100)}  # fmt: skip
    assert not taken[0]
    assert taken[10] < taken[50] < taken[100] == set(ids)
    assert 140 < len(taken[10]) < 260
    assert selects(zkr.Canary(percent=10), zkr.Instance("host-5")) == ("host-5" in taken[10])


@pytest.mark.parametrize("arguments", [{}, {"percent": 1, "labels": {"a": "b"}}, {"percent": 101}, {"labels": {}}])
def test_selectors_are_checked(arguments: Any) -> None:
    with pytest.raises(ValueError, match=r"percent|label"):
        zkr.Canary(**arguments)


def test_reports_are_made_anew_in_each_session_and_go_with_the_service(
    zkr_server: Server, zkr_client: zkr.Client, zkr_namespace: str
) -> None:
    first_release(zkr_client)
    with zkr.connect(zkr_server.hosts, namespace=zkr_namespace) as service:
        with zkr.Config(service, PATH, Settings, instance=zkr.Instance("me")) as config:

            def reported_in(session: int) -> bool:
                names = zkr_client.children(f"{PATH}-instances") if zkr_client.exists(f"{PATH}-instances") else []
                owners = [zkr_client.get(f"{PATH}-instances/{name}").stat.ephemeral_owner for name in names]
                return owners == [session]

            first = service.session_id
            wait_until(lambda: reported_in(first), 5, "the report is there")
            zkr_server.expire(service)
            wait_until(lambda: service.session_id not in {0, first}, 20, "there is another session")
            wait_until(lambda: reported_in(service.session_id), 10, "the report is there again")
            assert config.version == 0
        wait_until(lambda: zkr_client.children(f"{PATH}-instances") == [], 5, "the report is gone")


def test_a_reader_that_may_not_write_is_a_reader(
    zkr_server: Server, zkr_namespace: str, caplog: pytest.LogCaptureFixture
) -> None:
    owner = zkr.DigestAuth("owner", "x")
    read_only = [zkr.Acl(31, "auth", ""), zkr.Acl(1, "world", "anyone")]
    with (
        zkr.connect(zkr_server.hosts, namespace=zkr_namespace, auth=owner, acl=read_only) as zk,
        zkr.connect(zkr_server.hosts, namespace=zkr_namespace) as reader,
    ):
        zk.create("/config", parents=True)
        first_release(zk)
        zk.create(f"{PATH}-instances")
        with zkr.Config(reader, PATH, Settings) as config:
            for size in (2, 3):
                zkr.Config(zk, PATH, Settings).publish(settings(size))
                reaches(config, size - 1)
            wait_until(lambda: "does not report" in caplog.text, 5, "it is told")
        assert caplog.text.count("does not report") == 1
        assert zk.children(f"{PATH}-instances") == []
        for path in (f"{PATH}-instances", PATH):
            zk.delete(path)
        for name in zk.children(f"{PATH}-releases"):
            zk.delete(f"{PATH}-releases/{name}")
        zk.delete(f"{PATH}-releases")
        zk.delete("/config")


def test_an_abort_that_never_arrived_is_sent_again(zkr_proxy: FaultProxy, zkr_client: zkr.Client) -> None:
    first_release(zkr_client)
    config = zkr.Config(zkr_client, PATH, Settings)
    config.publish(settings(2), canary=SOME)
    gate = zkr_proxy.hold_request("multi")
    thread = threading.Thread(target=config.abort)
    thread.start()
    gate.wait_held()
    gate.drop()
    thread.join(20)
    assert config.status().canary is None


def test_the_news_that_a_canary_is_gone_is_confirmed_before_going_back(pair: Pair, zkr_client: zkr.Client) -> None:
    """It may have been promoted, and the document not been read yet: two nodes are read by two requests."""
    from dataclasses import replace  # noqa: PLC0415

    from zkrecipes.known import Seen  # noqa: PLC0415

    one, two = pair
    two.publish(settings(2), canary=SOME)
    one.wait_for(lambda current: current.database.pool_size == 2, 5)
    in_force, watch = one._state.in_force, one._state._canary
    assert in_force is not None
    assert in_force.look.document is not None
    gone = replace(in_force.look, canary=None)
    older = in_force.look.document.stat._replace(mzxid=1)
    assert watch.must_confirm(in_force, replace(gone, document=Seen(b"{}", older))), "it is read first"
    wait_until(lambda: not watch._confirming, 5, "it has been read")
    assert watch.must_confirm(in_force, gone), "the document has moved meanwhile: nothing is confirmed by that"
    wait_until(lambda: not watch._confirming, 5, "it has been read again")
    assert not watch.must_confirm(in_force, gone), "it is what it was: the canary was aborted"
    assert not watch.must_confirm(in_force, in_force.look), "it runs"
    watch._confirmed = ""
    assert in_force.look.canary is not None
    another = in_force.look.canary.stat._replace(czxid=in_force.look.canary.stat.czxid + 1)
    replaced = replace(in_force.look, canary=Seen(in_force.look.canary.data, another))
    assert watch.must_confirm(in_force, replaced), "so is it when the next one has begun"


def test_a_canary_that_cannot_be_read_runs_nowhere_and_can_be_ended(pair: Pair, zkr_client: zkr.Client) -> None:
    one, two = pair
    zkr_client.create(f"{PATH}-canary", b"{")
    with pytest.raises(zkr.ConflictError, match="cannot be read"):
        two.publish(settings(2))
    assert two.status().canary is None
    assert one.current.database.pool_size == 1
    two.abort()
    two.publish(settings(2))
    reaches(one, 1)

"""`zkrecipes queue`, for people and for programs."""

from __future__ import annotations

import json
import subprocess
from typing import Final

import pytest

import zkrecipes as zkr
from tests.cli.conftest import Cli, Notes, events
from zkrecipes.testing import wait_until

PATH: Final = "/queues/mails"


def test_put_peek_stats_and_take(cli: Cli, zk: zkr.Client) -> None:
    put = cli.call("queue", "put", PATH, "first", "second")
    assert (put.returncode, len(put.stdout.splitlines())) == (0, 2), put.stderr
    urgent = cli.call("queue", "put", "--priority", "-1", "--header", "trace=7=f", "--json", PATH, "--", "-5")
    [id_] = json.loads(urgent.stdout)["ids"]
    assert cli.call("queue", "put", PATH, "later", "--delay", "60").returncode == 0

    peeked = json.loads(cli.call("queue", "peek", PATH, "-n", "2", "--json").stdout)["items"]
    assert [(each["item"], each["attempts"]) for each in peeked] == [("-5", 0), ("first", 0)]
    assert "second" in cli.call("queue", "peek", PATH).stdout.splitlines()[2]
    stats = json.loads(cli.call("queue", "stats", PATH, "--json").stdout)
    assert (stats["waiting"], stats["delayed"], stats["claimed"], stats["dead"]) == (3, 1, 0, 0)
    assert cli.call("queue", "stats", PATH).stdout.startswith("3 waiting, 1 delayed, 0 claimed, 0 dead; the oldest")

    taken = json.loads(cli.run("queue", "take", PATH, "--json").stdout)
    assert (taken["id"], taken["item"], taken["headers"], taken["attempt"]) == (id_, "-5", {"trace": "7=f"}, 1)
    assert cli.run("queue", "take", PATH).stdout == "first\n"
    assert [each.item for each in zkr.Queue(zk, PATH).peek(5)] == [b"second"]


def test_the_same_dedup_id_stores_once(cli: Cli) -> None:
    first = cli.call("queue", "put", PATH, "x", "--dedup-id", "1")
    assert cli.call("queue", "put", PATH, "x", "--dedup-id", "1").stdout == first.stdout
    assert json.loads(cli.call("queue", "stats", PATH, "--json").stdout)["waiting"] == 1


def test_lines_of_the_standard_input_are_items(cli: Cli, zk: zkr.Client) -> None:
    process = cli.start("queue", "put", PATH, "-", stdin=subprocess.PIPE)
    process.communicate("one\ntwo\n", timeout=30)
    assert process.returncode == 0
    assert [each.item for each in zkr.Queue(zk, PATH).peek(5)] == [b"one", b"two"]


def test_an_empty_queue(cli: Cli, zk: zkr.Client) -> None:
    assert cli.run("queue", "take", PATH, "--timeout", "0").returncode == 75
    assert cli.call("queue", "peek", "/queues/none").stdout == "nothing waits in /queues/none\n"
    assert cli.call("queue", "dead", "/queues/none").stdout == "no dead letter in /queues/none\n"
    assert zk.exists("/queues/none") is None


def test_a_command_does_the_work_and_its_status_settles_the_item(cli: Cli, zk: zkr.Client) -> None:
    queue = zkr.Queue(zk, PATH)
    queue.put(b"\xff\0raw")
    told = 'cat "$ZKRECIPES_ITEM_FILE" | wc -c; echo "$ZKRECIPES_ATTEMPT $ZKRECIPES_PATH"; exit '
    failed = cli.run("queue", "take", PATH, "--json", "--", "sh", "-c", told + "3")
    assert (failed.returncode, failed.stdout) == (3, f"5\n1 {PATH}\n"), failed.stderr
    assert [event["event"] for event in events(failed.stderr)] == ["claimed", "ended"]
    [item] = queue.peek(2)
    assert (item.attempts, item.error) == (1, "the command ended with status 3")
    done = cli.run("queue", "take", PATH, "--", "sh", "-c", told + "0")
    assert (done.returncode, done.stdout) == (0, f"5\n2 {PATH}\n"), done.stderr
    assert queue.stats() == zkr.QueueStats(0, 0, 0, 0, None)


def test_a_claim_that_is_lost_ends_the_command(cli: Cli, zk: zkr.Client, notes: Notes) -> None:
    queue = zkr.Queue(zk, PATH)
    queue.put(b"slow")
    process = cli.start("queue", "take", PATH, "--session-timeout", "4", "--", *notes.command())
    notes.started()
    lane = f"{PATH}/lanes/80000000"
    [shelf] = [name for name in zk.children(lane) if name.startswith("c")]
    [name] = zk.children(f"{lane}/{shelf}")
    # As the end of its session does it: another consumer's turn.
    zk.delete(f"{lane}/{shelf}/{name}")
    with queue.take(timeout=10.0) as claim:
        assert claim.attempt == 2
        process.communicate(timeout=30)
        assert process.returncode == 76
        notes.nothing_lives()
        assert claim.valid


def test_dead_letters_are_shown_and_put_back(cli: Cli, zk: zkr.Client) -> None:
    queue = zkr.Queue(zk, PATH)
    first, second = queue.put(b"one"), queue.put(b"two")
    for _ in range(2):
        ended = cli.run("queue", "take", PATH, "--max-attempts", "1", "--timeout", "10", "--", "false")
        assert ended.returncode == 1
    letters = json.loads(cli.call("queue", "dead", PATH, "--json").stdout)["dead"]
    assert [(each["id"], each["error"]) for each in letters] == [
        (first, "the command ended with status 1"),
        (second, "the command ended with status 1"),
    ]
    assert "status 1" in cli.call("queue", "dead", PATH).stdout
    assert cli.call("queue", "redrive", PATH, second).stdout == "1 put back\n"
    assert cli.call("queue", "redrive", PATH, second).returncode == 1
    assert json.loads(cli.call("queue", "redrive", PATH, "--all", "--json").stdout)["redriven"] == 1
    wait_until(lambda: queue.stats().waiting == 2, 5.0, "both wait again")
    assert [each.item for each in queue.peek(5)] == [b"two", b"one"]


def test_every_verb_knows_curators_layouts(cli: Cli, zk: zkr.Client) -> None:
    def call(verb: str, *arguments: str) -> str:
        ended = cli.call("queue", verb, PATH, "--layout", "curator-priority", "--lock-path", "/locks", *arguments)
        assert ended.returncode == 0, ended.stderr
        return ended.stdout

    assert call("put", "second", "--priority", "5") == "queue-1000000050000000000\n"
    urgent = call("put", "first", "--priority", "-1").strip()
    assert sorted(zk.children(PATH)) == [urgent, "queue-1000000050000000000"]
    assert [each["id"] for each in json.loads(call("peek", "--json"))["items"]] == [urgent, "queue-1000000050000000000"]
    assert call("take") == "first\n"
    assert call("stats").startswith("1 waiting, 0 delayed, 0 claimed, 0 dead")
    options = ("--layout", "curator-priority", "--lock-path", "/locks", "--max-attempts", "1", "--", "false")
    assert cli.run("queue", "take", PATH, *options).returncode == 1
    [letter] = json.loads(call("dead", "--json"))["dead"]
    assert (letter["id"], letter["priority"]) == ("queue-1000000050000000000", 5)
    assert call("redrive", letter["id"]) == "1 put back\n"
    queue = zkr.Queue(zk, PATH, layout="curator-priority", lock_path="/locks")
    with queue.take(timeout=5.0) as claim:
        assert (claim.item, claim.attempt) == (b"second", 1)
    assert zk.exists(f"{PATH}-locks") is None


def test_a_failed_item_of_a_delay_queue_is_served_later(cli: Cli, zk: zkr.Client) -> None:
    queue = zkr.Queue(zk, PATH, layout="curator-delay")
    queue.put(b"item")
    options = ("--layout", "curator-delay", "--retry-after", "60", "--", "false")
    assert cli.run("queue", "take", PATH, *options).returncode == 1
    stats = queue.stats()
    assert (stats.waiting, stats.delayed) == (0, 1)


@pytest.mark.parametrize(
    "arguments",
    [
        ("put", PATH, "a", "b", "--dedup-id", "1"),
        ("put", PATH, "a", "--header", "nothing"),
        ("put", PATH, "a", "--priority", str(2**31)),
        ("put", "relative", "a"),
        ("put", PATH),
        ("peek", PATH, "-n", "0"),
        ("take", PATH, "--timeout", "-1"),
        ("redrive", PATH),
        ("redrive", PATH, "id", "--all"),
        ("put", PATH, "a", "--layout", "ours"),
        ("put", PATH, "a", "--lock-path", "/locks"),
        ("put", PATH, "a", "--layout", "curator", "--priority", "1"),
        ("put", PATH, "a", "--layout", "curator", "--delay", "1"),
        ("stats", PATH, "--layout", "curator", "--lock-path", PATH),
        ("peek", PATH, "--layout", "curator", "--lock-path", f"{PATH}/locks"),
        ("take", PATH, "--layout", "curator", "--lock-path", "/queues"),
        ("take", PATH, "--layout", "curator-priority", "--retry-after", "1", "--timeout", "0", "--", "true"),
    ],
)
def test_bad_arguments(cli: Cli, arguments: tuple[str, ...]) -> None:
    assert cli.call("queue", *arguments).returncode == 2


def test_without_a_server(cli: Cli) -> None:
    ended = cli.call("--connect-timeout", "0.3", "queue", "put", PATH, "x", hosts="127.0.0.1:1")
    assert ended.returncode == 69

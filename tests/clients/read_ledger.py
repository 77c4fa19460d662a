"""Reads a ledger with a Kafka consumer that knows nothing of Keten.

On a real Apache Kafka and on the embedded broker it lets a collection fail, be
retried and succeed, then reads every record with librdkafka, as kcat does, and
holds it to what is promised to readers: CloudEvents headers that the
CloudEvents SDK understands, keys and ids as documented, and values that follow
the JSON Schema of their type.
"""

from __future__ import annotations

import json
import os
import pathlib
import re
import secrets
import subprocess
import sys
import tempfile
import threading
import time
import urllib.request
import uuid
from collections import Counter
from collections.abc import Iterator
from datetime import datetime
from typing import Any

import jsonschema
from cloudevents.kafka import KafkaMessage, from_binary
from confluent_kafka import OFFSET_BEGINNING, Consumer, Message, TopicPartition

ROOT = pathlib.Path(__file__).resolve().parents[2]
PARTITIONS = 3
DEADLINE_S = 90  # for everything that is waited for
# What five certificates take at least: five tasks each, started and ended, a
# creation for each, and a retry with one more attempt.
DEMO_EVENTS = 5 * (1 + 2 * 5) + 3

# The second task fails until the file that its argument names is there.
CATALOG = """
types:
  greet:
    description: Greet somebody
    exec: {command: [sh, -c, 'printf "{\\"greeting\\": \\"hi\\"}"']}
  wait-for-file:
    description: Fail unless the file "mended" is there
    exec: {command: [sh, -c, 'if [ -e mended ]; then echo "{\\"ok\\": true}"; else echo "nothing is mended" >&2; exit 1; fi']}
"""


def main() -> None:
    with tempfile.TemporaryDirectory(prefix="keten-clients-") as scratch:
        # The account that PostgreSQL gets under root must reach its data.
        os.chmod(scratch, 0o711)
        folder = pathlib.Path(scratch)
        program = folder / "keten"
        subprocess.run(["go", "build", "-buildvcs=false", "-o", program, "./cmd/keten"], cwd=ROOT, check=True)
        catalog = folder / "catalog.yaml"
        catalog.write_text(CATALOG)
        for stack in (on_kafka, embedded):
            (folder / "mended").unlink(missing_ok=True)
            read = stack(program, catalog, folder)
            print(f"{stack.__name__}: {sum(read.values())} records read and found right: {dict(sorted(read.items()))}")
        demo(program)


def on_kafka(program: pathlib.Path, catalog: pathlib.Path, folder: pathlib.Path) -> Counter[str]:
    """keten serve on the Kafka and PostgreSQL that run beside the tests."""
    brokers, database = os.environ["KETEN_TEST_BROKERS"], os.environ["KETEN_TEST_DATABASE_URL"]
    prefix = "clients-" + secrets.token_hex(4)
    ledger = ["--kafka-brokers", brokers, "--database-url", database, "--prefix", prefix, "--allow-single-replica"]
    subprocess.run([program, "init", *ledger, "--partitions", str(PARTITIONS)], check=True, stdout=subprocess.DEVNULL)
    serve = [program, "serve", *ledger, "--catalog", catalog, "--http-addr", "127.0.0.1:0", "--log-format", "json"]
    with Process(serve) as process:
        url = process.wait_for(r'"msg":"serving".*"url":"(http://[^"]+)"')
        collection = run_collection(url, folder)
        return check_ledger(brokers, prefix + ".ledger", collection)


def embedded(program: pathlib.Path, catalog: pathlib.Path, folder: pathlib.Path) -> Counter[str]:
    """keten dev, which brings its own broker and PostgreSQL."""
    dev = [program, "dev", "--data-dir", folder / "data", "--kafka-addr", "127.0.0.1:0", "--catalog", catalog, "--http-addr", "127.0.0.1:0"]
    with Process(dev) as process:
        url = process.wait_for(r"API\s+(http://[^/\s]+)")
        brokers = process.wait_for(r"Kafka\s+(127\.0\.0\.1:\d+)")
        collection = run_collection(url, folder)
        return check_ledger(brokers, "keten.ledger", collection)


def demo(program: pathlib.Path) -> None:
    """What make demo tells, read by a program that anybody could have written."""
    with Process([program, "demo"], cwd=ROOT) as process:
        brokers = process.wait_for(r"Broker .* (127\.0\.0\.1:\d+),")
        process.wait_for(r"(The API stays up)")
        reader = [sys.executable, ROOT / "tests" / "clients" / "valid_events.py", brokers, "keten.ledger"]
        read = subprocess.run(reader, check=True, text=True, stdout=subprocess.PIPE).stdout
    found = re.fullmatch(r"(\d+) events of keten\.ledger are valid\n", read)
    assert found and int(found[1]) >= DEMO_EVENTS, read
    print(f"demo: {read}", end="")


class Process:
    """A child whose output is searched line by line, and which ends with us."""

    def __init__(self, command: list[Any], cwd: pathlib.Path | None = None) -> None:
        self._child = subprocess.Popen(command, cwd=cwd, text=True, stdout=subprocess.PIPE, stderr=subprocess.STDOUT)
        self._lines: list[str] = []
        self._reader = threading.Thread(target=self._read, daemon=True)

    def __enter__(self) -> Process:
        self._reader.start()
        return self

    def __exit__(self, error: type[BaseException] | None, *_: object) -> None:
        self._child.terminate()
        try:
            code = self._child.wait(timeout=DEADLINE_S)
        except subprocess.TimeoutExpired:
            self._child.kill()
            raise
        self._reader.join()
        if error is not None or code != 0:
            sys.stderr.write("".join(self._lines))
        if error is None and code != 0:
            raise AssertionError(f"{self._child.args!r} ended with {code}")

    def _read(self) -> None:
        for line in self._child.stdout or ():
            self._lines.append(line)

    def wait_for(self, pattern: str) -> str:
        """The first group of the first line that has the pattern."""

        def found() -> str | None:
            matches = (re.search(pattern, line) for line in list(self._lines))
            return next((m.group(1) for m in matches if m), None)

        def ended() -> bool:
            return self._child.poll() is not None

        return wait_until(found, f"a line with {pattern}", give_up=ended)


def wait_until(probe: Any, what: str, give_up: Any = lambda: False) -> Any:
    end = time.monotonic() + DEADLINE_S
    while time.monotonic() < end:
        if (value := probe()) is not None:
            return value
        if give_up():
            break
        time.sleep(0.05)
    raise AssertionError(f"waited in vain for {what}")


def call(method: str, url: str, body: Any = None) -> Any:
    data = None if body is None else json.dumps(body).encode()
    request = urllib.request.Request(url, data, {"Content-Type": "application/json"}, method=method)
    with urllib.request.urlopen(request, timeout=DEADLINE_S) as answer:
        return json.load(answer)


def run_collection(url: str, folder: pathlib.Path) -> str:
    """Creates a collection that fails once and is retried; returns its id."""
    tasks = [{"name": "first", "type": "greet", "args": {"who": "ledger 📒"}}, {"name": "second", "type": "wait-for-file", "args": {}}]
    created = call("POST", url + "/v1/collections", {"name": "read by others", "labels": {"test": "clients"}, "tasks": tasks})
    here = url + "/v1/collections/" + created["id"]

    def status_is(wanted: str) -> Any:
        shown = call("GET", here)
        return shown if shown["status"] == wanted else None

    wait_until(lambda: status_is("failed"), "the second task to fail")
    (folder / "mended").touch()
    call("POST", here + "/retry", {"reason": "it is mended"})
    shown = wait_until(lambda: status_is("succeeded"), "the retry to succeed")
    assert [t["id"] for t in shown["tasks"]] == [t["id"] for t in created["tasks"]], "the retry changed ids"
    return str(created["id"])


def check_ledger(brokers: str, topic: str, collection: str) -> Counter[str]:
    """Checks each record by itself, then the story they tell; counts types."""
    schemas = Schemas()
    seen: set[str] = set()
    story: list[str] = []
    types: Counter[str] = Counter()
    for message in records(brokers, topic):
        where = f"{topic} {message.partition()}:{message.offset()}"
        try:
            name = check_record(message, schemas, seen)
        except Exception as error:
            raise AssertionError(f"{where}: {error!r}: headers {message.headers()}, value {message.value()!r}") from error
        types[name] += 1
        if message.key() == collection.encode():
            story.append(name)
    expected = [
        "CollectionCreated", "TaskStarted", "TaskSucceeded", "TaskStarted", "TaskFailed",
        "RetryRequested", "TaskStarted", "TaskSucceeded",
    ]  # fmt: skip
    # A start that is appended back to back with an outcome is refused when the
    # outcome was a failure; it stays in the log and means nothing.
    assert subsequence(story, expected), f"the collection's records are {story}"
    assert types["LedgerOpened"] >= 1 and types["PartitionClaimed"] >= 1, f"read only {types}"
    return types


def subsequence(story: list[str], expected: list[str]) -> bool:
    """Whether the story has the expected names in that order."""
    rest = iter(story)
    return all(name in rest for name in expected)


def records(brokers: str, topic: str) -> Iterator[Message]:
    """All records that are in the topic now, partition by partition."""
    settings = {"group.id": "clients-reader", "enable.auto.commit": False, "check.crcs": True, "enable.metrics.push": False}
    consumer = Consumer({"bootstrap.servers": brokers, **settings})
    try:
        for partition in sorted(consumer.list_topics(topic, timeout=DEADLINE_S).topics[topic].partitions):
            place = TopicPartition(topic, partition, OFFSET_BEGINNING)
            low, high = consumer.get_watermark_offsets(place, timeout=DEADLINE_S)
            assert low == 0, f"partition {partition} has lost its beginning"
            consumer.assign([place])
            for offset in range(high):
                message = consumer.poll(DEADLINE_S)
                assert message is not None, f"{topic} {partition}:{offset} does not arrive"
                assert message.error() is None, message.error()
                assert message.offset() == offset, f"want offset {offset}, got {message.offset()}"
                yield message
    finally:
        consumer.close()


def check_record(message: Message, schemas: Schemas, seen: set[str]) -> str:
    """Checks one record by itself; returns its event's name."""
    headers = message.headers() or []
    given = {name: value.decode() for name, value in headers}
    assert len(given) == len(headers), "a header is there twice"
    assert given["ce_specversion"] == "1.0"
    assert given["content-type"] == "application/json"
    assert re.fullmatch(r"/keten/[0-9a-f-]{36}/[a-z]+", given["ce_source"]), given["ce_source"]
    assert datetime.fromisoformat(given["ce_time"].replace("Z", "+00:00")).tzinfo is not None
    event_id = uuid.UUID(given["ce_id"])
    assert event_id.version == 7 and str(event_id) == given["ce_id"]
    assert given["ce_id"] not in seen, "an event id is there twice"
    seen.add(given["ce_id"])

    value = json.loads(message.value(), object_pairs_hook=no_duplicates)
    name = schemas.check(given["ce_type"], value)
    key = message.key().decode() if message.key() else ""
    assert key == value.get("collection_id", ""), "the key is not the collection's id"
    assert given.get("ce_subject", "") == key
    assert message.timestamp()[1] > 0

    # The SDK takes header values as bytes and the key as partition key.
    event = from_binary(KafkaMessage(headers=dict(headers), key=message.key(), value=message.value()))
    assert event["type"] == given["ce_type"] and event["id"] == given["ce_id"] and event.data == value
    return name


def no_duplicates(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    members = dict(pairs)
    assert len(members) == len(pairs), "a JSON member is there twice"
    return members


class Schemas:
    """The published schemas, by event type."""

    def __init__(self) -> None:
        self._validators: dict[str, jsonschema.Draft202012Validator] = {}
        for path in sorted((ROOT / "schemas" / "events").glob("*.json")):
            schema = json.loads(path.read_text())
            jsonschema.Draft202012Validator.check_schema(schema)
            checker = jsonschema.Draft202012Validator.FORMAT_CHECKER
            self._validators[path.stem] = jsonschema.Draft202012Validator(schema, format_checker=checker)
        assert self._validators, "there are no schemas"

    def check(self, event_type: str, value: Any) -> str:
        self._validators[event_type].validate(value)
        return event_type.removeprefix("keten.v1.")


if __name__ == "__main__":
    main()

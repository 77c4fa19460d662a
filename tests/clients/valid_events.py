"""Reads a ledger from its beginning and finds every event valid, with nothing of
Keten's but the schemas: valid_events.py 127.0.0.1:9092 keten.ledger"""

import json
import pathlib
import sys

from cloudevents.kafka import KafkaMessage, from_binary
from confluent_kafka import Consumer, KafkaError, TopicPartition
from jsonschema import Draft202012Validator as Schema

brokers, topic = sys.argv[1:]
events = pathlib.Path(__file__).parents[2] / "schemas" / "events"
schemas = {file.stem: Schema(json.loads(file.read_text()), format_checker=Schema.FORMAT_CHECKER) for file in events.iterdir()}
consumer = Consumer({"bootstrap.servers": brokers, "group.id": "anybody", "enable.auto.commit": False, "enable.partition.eof": True, "enable.metrics.push": False})
partitions = consumer.list_topics(topic, timeout=30).topics[topic].partitions
consumer.assign([TopicPartition(topic, partition, 0) for partition in partitions])
valid, ended = 0, set()
while len(ended) < len(partitions):
    message = consumer.poll(30)
    assert message is not None, f"{topic} does not answer"
    if message.error():
        assert message.error().code() == KafkaError._PARTITION_EOF, message.error()
        ended.add(message.partition())
        continue
    event = from_binary(KafkaMessage(dict(message.headers()), message.key(), message.value()))
    schemas[event["type"]].validate(event.data)
    valid += 1
print(f"{valid} events of {topic} are valid")

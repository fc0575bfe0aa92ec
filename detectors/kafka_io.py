"""Kafka topics as Flink streams, headers included.

The DataStream connector hides record headers from Python, so both ends go through the Table API, whose connector shows them
as a column; values stay raw bytes.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from trimtab.bus import rejected
from trimtab.messages import FINDINGS, FLEETS, MODELS, SCORES, TELEMETRY

if TYPE_CHECKING:
    from pyflink.datastream import DataStream
    from pyflink.table import StreamTableEnvironment

GROUP = "trimtab-detectors"
"""Consumer group whose committed offsets a job without a usable checkpoint goes on from."""

OUTGOING = [SCORES, FINDINGS, *(rejected(topic) for topic in (TELEMETRY, FLEETS, MODELS))]


def read(tables: StreamTableEnvironment, bootstrap: str) -> DataStream:
    """Everything the job reads, as rows (topic, key, value, traceparent): telemetry, and the two control topics.

    Without a checkpoint, telemetry goes on after the group's commits (else from its beginning), while the compacted control
    topics are always read whole: they are the state of the world.
    """
    _source(tables, "telemetry", bootstrap, [TELEMETRY], "group-offsets")
    _source(tables, "control", bootstrap, [FLEETS, MODELS], "earliest-offset")
    # One row a second with topic '': it passes the whole chain, Python included, and shows that the job processes.
    tables.execute_sql("CREATE TEMPORARY TABLE beats (n BIGINT) WITH ('connector' = 'datagen', 'rows-per-second' = '1')")
    record = "`topic`, `key`, `value`, headers['traceparent'] AS traceparent"
    return tables.to_data_stream(
        tables.sql_query(
            # Only constants of this file go into the text.
            f"""SELECT {record} FROM telemetry UNION ALL SELECT {record} FROM control UNION ALL
            SELECT '', CAST(NULL AS BYTES), CAST(NULL AS BYTES), CAST(NULL AS BYTES) FROM beats"""  # noqa: S608
        )
    )


def write(tables: StreamTableEnvironment, bootstrap: str, stream: DataStream) -> None:
    """Sends rows (topic, key, value, traceparent, reason), each to its own topic, at least once."""
    columns = "`topic` STRING NOT NULL METADATA, `key` BYTES, `value` BYTES, `headers` MAP<STRING, BYTES> METADATA"
    tables.execute_sql(
        f"""CREATE TEMPORARY TABLE outgoing ({columns}) WITH (
            {_connection(bootstrap, OUTGOING)},
            'sink.delivery-guarantee' = 'at-least-once',
            'properties.linger.ms' = '1',
            'properties.compression.type' = 'zstd',
            'properties.delivery.timeout.ms' = '120000'
        )"""
    )
    tables.create_temporary_view("produced", tables.from_data_stream(stream))
    statements = tables.create_statement_set()
    statements.add_insert_sql(
        """INSERT INTO outgoing SELECT `topic`, `key`, `value`, CASE
            WHEN reason IS NOT NULL AND traceparent IS NOT NULL THEN MAP['reason', reason, 'traceparent', traceparent]
            WHEN reason IS NOT NULL THEN MAP['reason', reason]
            WHEN traceparent IS NOT NULL THEN MAP['traceparent', traceparent]
            ELSE CAST(NULL AS MAP<STRING, BYTES>) END FROM produced"""
    )
    statements.attach_as_datastream()


def _source(tables: StreamTableEnvironment, name: str, bootstrap: str, topics: list[str], start: str) -> None:
    columns = "`topic` STRING METADATA VIRTUAL, `key` BYTES, `value` BYTES, `headers` MAP<STRING, BYTES> METADATA VIRTUAL"
    tables.execute_sql(
        f"""CREATE TEMPORARY TABLE {name} ({columns}) WITH (
            {_connection(bootstrap, topics)},
            'properties.group.id' = '{GROUP}',
            'properties.auto.offset.reset' = 'earliest',
            'properties.fetch.max.wait.ms' = '100',
            'scan.startup.mode' = '{start}'
        )"""
    )


def _connection(bootstrap: str, topics: list[str]) -> str:
    return f"""'connector' = 'kafka', 'properties.bootstrap.servers' = '{bootstrap}', 'topic' = '{";".join(topics)}',
            'key.format' = 'raw', 'key.fields' = 'key', 'value.format' = 'raw', 'value.fields-include' = 'EXCEPT_KEY'"""

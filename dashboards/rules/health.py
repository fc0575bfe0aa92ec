"""Alerts on Trimtab itself: a watchman who sleeps must be noticed by somebody else."""

from __future__ import annotations

from dashboards.rules.model import Alert

ALERTS: list[Alert] = [
    Alert(
        "TrimtabWatchdog",
        "vector(1)",
        "none",
        "Always firing: its silence means that alerting itself is broken",
        "Route it to a dead man's switch outside this Prometheus, which pages when it stops coming.",
    ),
    Alert(
        "TrimtabPartDown",
        'up{job="trimtab"} == 0',
        "critical",
        "{{ $labels.part }} at {{ $labels.instance }} does not answer",
        "Prometheus could not scrape it for 2 minutes.",
        hold="2m",
    ),
    Alert(
        "TrimtabAbsent",
        'absent(up{job="trimtab"})',
        "critical",
        "Prometheus scrapes no part of Trimtab",
        "No target has the label job with the value trimtab: nothing else here can fire.",
        hold="5m",
    ),
    Alert(
        "TrimtabNoScrapes",
        'sum by (instance) (rate(trimtab_collect_scrapes_total{result="ok"}[1m])) == 0',
        "critical",
        "The collector at {{ $labels.instance }} has scraped nothing for a minute",
        "No telemetry reaches the detectors: Trimtab is blind and holds.",
        hold="1m",
    ),
    Alert(
        "TrimtabScrapesFail",
        'sum by (role) (rate(trimtab_collect_scrapes_total{result!="ok"}[5m]))'
        " / sum by (role) (rate(trimtab_collect_scrapes_total[5m])) > 0.2",
        "warning",
        "{{ $value | humanizePercentage }} of the scrapes of {{ $labels.role }} fail",
        "The targets are slow or gone, or their pages are wrong; the label result of trimtab_collect_scrapes_total says which.",
        hold="5m",
    ),
    Alert(
        "TrimtabTargetsFileBad",
        "max by (instance) (trimtab_collect_targets_file_bad) == 1",
        "warning",
        "The targets file of the collector at {{ $labels.instance }} is missing or wrong",
        "Its last good content is used; new replicas are not scraped.",
        hold="1m",
    ),
    Alert(
        "TrimtabBusAway",
        "max by (instance) (trimtab_collect_bus_away) == 1",
        "critical",
        "Kafka takes no telemetry from the collector at {{ $labels.instance }}",
        "Snapshots wait in memory up to a bound, then the oldest are lost.",
        hold="1m",
    ),
    Alert(
        "TrimtabTelemetryLost",
        "sum by (instance) (increase(trimtab_collect_lost_total[5m])) > 0",
        "warning",
        "{{ $value | humanize }} snapshots were lost at {{ $labels.instance }}",
        "Kafka was away for longer than the spool can hold.",
    ),
    Alert(
        "TrimtabConsumerLag",
        "sum by (group) (trimtab_consumer_lag_records)"
        " / on () group_left () (sum(rate(trimtab_collect_delivered_total[5m])) > 0) > 30",
        "warning",
        "{{ $labels.group }} is {{ $value | humanizeDuration }} of telemetry behind",
        "What it decides on is old.",
        hold="2m",
    ),
    Alert(
        "TrimtabDetectorStale",
        "time() - max by (fleet, detector) (trimtab_detector_last_score_timestamp_seconds) > 60",
        "warning",
        "The detector {{ $labels.detector }} says nothing about fleet {{ $labels.fleet }}",
        "Its last score is {{ $value | humanizeDuration }} old.",
        hold="1m",
    ),
    Alert(
        "TrimtabDetectionDown",
        "max by (instance) (trimtab_detect_job_running) == 0"
        " or time() - max by (instance) (trimtab_detect_heartbeat_timestamp_seconds) > 30",
        "critical",
        "The detection job at {{ $labels.instance }} does not process",
        "Flink does not run it, or no tick has come through it for 30 s. The autoscaler gets no findings.",
        hold="1m",
    ),
    Alert(
        "TrimtabNoCheckpoints",
        "time() - max by (instance) (trimtab_detect_checkpoint_timestamp_seconds) > 300"
        " or (max by (instance) (trimtab_detect_job_running)"
        " unless on (instance) trimtab_detect_checkpoint_timestamp_seconds) == 1",
        "warning",
        "The detection job at {{ $labels.instance }} writes no checkpoints",
        "A restart would go on from an old state and read much again.",
        hold="5m",
    ),
    Alert(
        "TrimtabAutoscalerSilent",
        'time() - max by (fleet) (trimtab_last_message_timestamp_seconds{topic="trimtab.states"}) > 30',
        "critical",
        "Nobody looks after fleet {{ $labels.fleet }}",
        "The autoscaler has said nothing for {{ $value | humanizeDuration }}; it says something with every step.",
        hold="1m",
    ),
    Alert(
        "TrimtabOperatorLeaders",
        "sum (trimtab_operator_leads) != 1",
        "critical",
        "{{ $value }} operators lead; it must be one",
        "With none nobody looks after any fleet; with two their acts would contradict each other.",
        hold="1m",
    ),
    Alert(
        "TrimtabMessagesRejected",
        "sum by (topic) (delta(trimtab_rejected_records[10m])) > 0",
        "warning",
        "{{ $value | humanize }} messages on {{ $labels.topic }} could not be read",
        "They lie on {{ $labels.topic }}.rejected with the reason in a header.",
    ),
    Alert(
        "TrimtabModelOld",
        "(time() - max by (fleet) (trimtab_model_trained_timestamp_seconds)) / 86400 > 30",
        "warning",
        "The learned detectors of fleet {{ $labels.fleet }} know only what is {{ $value | humanize }} days old",
        "What is normal has changed since; train them again.",
        hold="1h",
    ),
    Alert(
        "TrimtabDetectorDrift",
        '(sum by (fleet, detector) (increase(trimtab_scores_alarming_total{detector!="invariants"}[6h]))'
        ' / (sum by (fleet, detector) (increase(trimtab_score_tail_ratio_count{detector!="invariants"}[6h])) > 1000))'
        " / on () group_left () (1 - max(trimtab_score_alarm)) > 20",
        "warning",
        "The detector {{ $labels.detector }} is alarmed {{ $value | humanize }} times as often as it should be",
        "Over 6 hours, on fleet {{ $labels.fleet }}. Either the fleet has been sick that long, or normal is not what it was.",
        hold="30m",
    ),
]

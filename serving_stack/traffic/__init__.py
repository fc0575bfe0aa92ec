"""Traffic: real requests at planned times, from the first to the last whether or not they are answered."""

from serving_stack.traffic.arrivals import arrival_blocks, arrival_times
from serving_stack.traffic.plan import Plan, Segment, Surge, one_segment, read_plan
from serving_stack.traffic.run import Files, Progress, Run, send
from serving_stack.traffic.tally import Result
from serving_stack.traffic.target import Target

__all__ = [
    "Files",
    "Plan",
    "Progress",
    "Result",
    "Run",
    "Segment",
    "Surge",
    "Target",
    "arrival_blocks",
    "arrival_times",
    "one_segment",
    "read_plan",
    "send",
]

"""Traffic: real requests at planned times, from the first to the last whether or not they are answered."""

from serving_stack.traffic.arrivals import arrival_blocks, arrival_times
from serving_stack.traffic.generator import Target
from serving_stack.traffic.plan import Plan, Segment, Surge, read_plan
from serving_stack.traffic.run import Files, Run, send
from serving_stack.traffic.tally import Result

__all__ = [
    "Files",
    "Plan",
    "Result",
    "Run",
    "Segment",
    "Surge",
    "Target",
    "arrival_blocks",
    "arrival_times",
    "read_plan",
    "send",
]

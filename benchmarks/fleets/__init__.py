"""Many ModelFleets whose pods cost nothing: the pods, their traffic, and the meter of the operator's process."""

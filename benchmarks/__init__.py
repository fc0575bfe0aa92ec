"""Benchmarks: commands that print a table, each beside an alternative measured in the same run. `suite/` holds one a file."""

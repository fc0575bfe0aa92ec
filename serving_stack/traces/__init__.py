"""Recorded arrival times, small, each with its source and licence."""

"""Findings and decisions to people: one cause, one thread, to any number of receivers."""

"""`report.html`: what a run was like, on one self-contained page."""

from embedded.report.page import say, write

__all__ = ["say", "write"]

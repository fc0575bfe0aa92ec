"""The dashboards: what each shows, in sections of panels."""

from __future__ import annotations

from dashboards.boards import adapters, detectors, fleet, fleets, gpus, itself, quality
from dashboards.boards.kind import Board

BOARDS: tuple[Board, ...] = (fleets.BOARD, fleet.BOARD, quality.BOARD, gpus.BOARD, adapters.BOARD, detectors.BOARD, itself.BOARD)
"""In the order of the links between them."""

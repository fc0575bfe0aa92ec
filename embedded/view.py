"""Shows a run while it goes on: a live view in a terminal, plain lines where there is none."""

from __future__ import annotations

import threading
import time
from collections import deque

from rich.console import Console, Group, RenderableType
from rich.live import Live
from rich.text import Text

from embedded.live import GPU_NOTE, Stage, frame, head, plain
from embedded.recorder import Recorder
from embedded.scenario import Scenario


class View:
    """Shows a run while it goes on: the live view in a terminal, else one plain line for everything that happens."""

    def __init__(self, console: Console, scenario: Scenario, seed: int, *, as_lines: bool) -> None:
        self._console, self._scenario, self._seed = console, scenario, seed
        self._as_lines = as_lines or not console.is_terminal
        self._recorder: Recorder | None = None
        self._stage = Stage("starting")
        self._early: deque[str] = deque(maxlen=25)
        self._stopping = threading.Event()
        self._thread = threading.Thread(target=self._lines if self._as_lines else self._live, name="view", daemon=True)

    def start(self) -> None:
        """Begins to show."""
        if self._as_lines:
            self._print(f"Trimtab demo: {self._scenario.name}, seed {self._seed}. {GPU_NOTE}")
        self._thread.start()

    def attach(self, recorder: Recorder) -> None:
        """From now on shows what this recorder reads."""
        self._recorder = recorder

    def stage(self, words: str, zero: float | None = None) -> None:
        """Says where the demo stands now."""
        self._stage = Stage(words, zero if zero is not None else self._stage.zero)
        self.line(words)

    def line(self, words: str) -> None:
        """Shows a line before there is a recorder to read from."""
        self._early.append(words)
        if self._as_lines:
            self._print(f"{'':>9}  {'demo':<8}  {words}")

    def stop(self) -> None:
        """Shows what is left and stops."""
        self._stopping.set()
        if self._thread.is_alive():
            self._thread.join(5.0)

    def _print(self, line: str) -> None:
        self._console.print(line, highlight=False, markup=False, soft_wrap=True)

    def _lines(self) -> None:
        shown = 0
        while True:
            last = self._stopping.wait(0.5)
            if self._recorder is not None:
                with self._recorder.recording() as recording:
                    fresh, shown = recording.notes[shown:], len(recording.notes)
                for note in fresh:
                    self._print(plain(note))
            if last:
                return

    def _live(self) -> None:
        with Live(self._draw(), console=self._console, auto_refresh=False, screen=True) as live:
            while not self._stopping.wait(0.3):
                live.update(self._draw(), refresh=True)

    def _draw(self) -> RenderableType:
        if self._recorder is None:
            top = head(self._scenario, self._seed, self._stage, time.time())
            return Group(
                top, *(Text(words, style="dim", no_wrap=True) for words in list(self._early)), Text(GPU_NOTE, style="dim")
            )
        with self._recorder.recording() as recording:
            return frame(self._scenario, self._seed, self._stage, recording, time.time())

"""Ctrl-C and SIGTERM: finish the iteration, save, leave."""

from __future__ import annotations

import os
import signal
import threading
import time
from contextlib import AbstractContextManager
from types import FrameType
from typing import Any

ECHO_S = 1.0
"""Seconds in which a repeated signal is an echo of the first, not somebody's impatience."""


class Interrupted(KeyboardInterrupt):
    """Training was stopped by a signal and can be resumed; `exit_code` is 130 or 143."""

    def __init__(self, message: str, number: int) -> None:
        super().__init__(message)
        self.exit_code = 128 + number


class StopRequests(AbstractContextManager["StopRequests"]):
    """Collects the first SIGINT or SIGTERM instead of dying of it; a second one ends at once.

    One within `ECHO_S` is taken as the same request: a terminal tells torchrun and its processes, and torchrun
    passes on what it was told.

    `received` is the signal's number or None. While `at_once` is true the first one ends at once too;
    for long work after which nothing is lost. Outside the main thread signals stay as they are.
    """

    def __init__(self, message: str) -> None:
        self.message = message
        self.received: int | None = None
        self.at_once = False
        self._previous: dict[int, Any] = {}
        self._owner = os.getpid()
        self._since = 0.0

    def __enter__(self) -> StopRequests:
        if threading.current_thread() is threading.main_thread():
            for number in (signal.SIGINT, signal.SIGTERM):
                self._previous[number] = signal.signal(number, self._receive)
        return self

    def __exit__(self, *error: object) -> None:
        for number, handler in self._previous.items():
            signal.signal(number, handler)

    def interruption(self, number: int | None = None) -> Interrupted:
        return Interrupted(self.message, number or self.received or signal.SIGINT)

    def _receive(self, number: int, frame: FrameType | None) -> None:
        if os.getpid() != self._owner:
            # A forked data worker inherits this handler: the terminal's Ctrl-C is the parent's
            # business, but the parent must still be able to end its workers.
            if number == signal.SIGTERM:
                os._exit(128 + number)
            return
        now = time.monotonic()
        if self.at_once or (self.received is not None and now - self._since > ECHO_S):
            raise self.interruption(number)
        if self.received is None:
            self.received, self._since = number, now

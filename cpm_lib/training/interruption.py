"""Ctrl-C and SIGTERM: finish the iteration, save, leave."""

from __future__ import annotations

import os
import signal
import threading
from contextlib import AbstractContextManager
from types import FrameType
from typing import Any


class Interrupted(KeyboardInterrupt):
    """Training was stopped by a signal and can be resumed; `exit_code` is 130 or 143."""

    def __init__(self, message: str, number: int) -> None:
        super().__init__(message)
        self.exit_code = 128 + number


class StopRequests(AbstractContextManager["StopRequests"]):
    """Collects the first SIGINT or SIGTERM instead of dying of it; the second one ends at once.

    `received` is the signal's number or None. While `at_once` is true the first one ends at once too;
    for long work after which nothing is lost. Outside the main thread signals stay as they are.
    """

    def __init__(self, message: str) -> None:
        self.message = message
        self.received: int | None = None
        self.at_once = False
        self._previous: dict[int, Any] = {}
        self._owner = os.getpid()

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
        if self.at_once or self.received is not None:
            raise self.interruption(number)
        self.received = number

"""Ctrl-C, kept waiting where it would leave something half done."""

import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager


@contextmanager
def uninterrupted() -> Iterator[None]:
    """Do what is inside to its end; a first Ctrl-C meanwhile takes effect after it.

    Libraries that work in threads of their own do not survive one in the middle.
    """
    if threading.current_thread() is not threading.main_thread():
        yield  # Ctrl-C does not come here
        return
    came = []

    def wait(*_):
        if came:
            raise KeyboardInterrupt
        came.append(True)

    before = signal.signal(signal.SIGINT, wait)
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, before)
    if came:
        signal.raise_signal(signal.SIGINT)

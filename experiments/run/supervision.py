"""Processes that train together stop together: within seconds, and with a sentence.

What devices of several processes exchange blocks deep in a library, which no signal gets
through to, and JAX aborts a process whose peer is gone, or has it wait for that peer for
minutes. So each process is two: a child that trains, and a parent that does no more than
wait for its end, or for a signal. When one child ends too early, so do all: on CPUs since
their connections break, otherwise since its heartbeats are missed. A child may be killed at
any moment, for the run folder holds what it takes to go on.
"""

import os
import shlex
import signal
import subprocess
import sys
import threading
import traceback
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import NoReturn

from experiments.run import command, run_folder
from experiments.run.terminal import shown

IS_CHILD = "JAXCNN_STDERR_OF_CHILD"
"""Set in a child: the number of the file that Python's errors go to. What C++ writes to
file 2, such as the stack of an abort, goes to the parent."""

LOST_A_PEER = 3
"""The exit status of a child in which an exchange with another process failed."""

SIGNS_OF_A_LOST_PEER = ("Gloo", "NCCL", "oordination service", "distributed service")
"""Words of the libraries."""


def is_child() -> bool:
    return IS_CHILD in os.environ


def stand_by(folder: Path) -> NoReturn:
    """Give this very command to a child, wait until one of the two is to end, and end.

    Args:
      folder: of the run, for the sentence that tells how to go on.
    """
    errors = os.dup(2)
    child = subprocess.Popen(
        [sys.executable, *sys.orig_argv[1:]],
        env=os.environ | {IS_CHILD: str(errors)},
        pass_fds=[errors],
        stdin=subprocess.PIPE,
        stderr=subprocess.PIPE,
        start_new_session=True,  # a terminal's Ctrl-C is for the parent alone
    )
    received = []

    def stop(number, _):
        received.append(signal.Signals(number).name)
        child.kill()

    for each in signal.SIGINT, signal.SIGTERM:
        signal.signal(each, stop)
    assert child.stderr is not None
    said = child.stderr.read().decode(errors="replace")
    child.wait()
    if received:
        sys.exit(_stopped(f"stopped by {received[0]}", folder))
    lost = child.returncode < 0 and any(sign in said for sign in SIGNS_OF_A_LOST_PEER)
    if lost or child.returncode == LOST_A_PEER:
        began = (folder / run_folder.CONFIGURATION).is_file()
        fate = "has ended" if began else "has ended, or never began"
        sys.exit(_stopped(f"stopped: another process of this run {fate}", folder))
    sys.stderr.write(said)
    if child.returncode < 0:
        name = signal.Signals(-child.returncode).name
        sys.exit(_stopped(f"stopped: the process that trains was ended by {name}", folder))
    sys.exit(child.returncode)


def _stopped(why: str, folder: Path) -> str:
    if not (folder / run_folder.CONFIGURATION).is_file():
        return f"{why}; nothing was learned yet: start all processes again"
    resume = shlex.quote(str(folder))
    return shown(f"{why}; to go on, start all processes with --resume {resume}")


@contextmanager
def child_of_a_parent() -> Iterator[None]:
    """What a child does inside: it ends with its parent, and fails at once.

    After a failure JAX would wait for the other processes, to say goodbye.
    """
    sys.stderr = os.fdopen(int(os.environ[IS_CHILD]), "w", 1, errors="backslashreplace")
    threading.Thread(target=_end_with_parent, daemon=True).start()
    try:
        yield
        return
    except BaseException as error:
        if any(sign in str(error) for sign in SIGNS_OF_A_LOST_PEER):
            status = LOST_A_PEER  # the parent tells what that means
        else:
            status = 1
            if isinstance(error, SystemExit):
                print(error, file=sys.stderr)
            elif isinstance(error, command.FAILURES):
                print(command.said(error), file=sys.stderr)
            else:
                traceback.print_exc()
    sys.stdout.flush()
    os._exit(status)


def _end_with_parent() -> None:
    os.read(0, 1)  # nothing is ever written: this is until the parent is gone
    os._exit(1)

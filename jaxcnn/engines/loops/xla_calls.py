"""How XLA calls a nest, and how the parts of its work are spread over XLA's own threads.

XLA calls a C function with one argument, the address of a frame (``XLA_FFI_CallFrame`` in
``xla/ffi/api/c_api.h``, which comes with jaxlib). The frame says where the arrays are,
holds the table as an attribute, and has two functions for threads: how many there are, and
"run this function some time". Nothing here takes Python's lock.

The work is divided into parts, as many as the table says, however many threads there are;
so the result is the same bits on any number of threads. Every thread that has time takes
the next part. The one that XLA called takes parts, too, and in the end waits for parts,
never for threads: one that has not begun yet may be waiting behind another call.
"""

from collections.abc import Callable

from jaxcnn.engines.loops.addresses import (
    add_atomically,
    address_of,
    call,
    call2,
    load32,
    load64,
    loop,
    store32,
    store64,
    words,
)
from jaxcnn.engines.loops.tables import FOUND, GIVEN_FOR_A, NO_WINNERS, Header

EXTENSION, INTERFACE, CONTEXT = 8, 16, 24
ARGUMENTS, RESULTS, ATTRIBUTES = 72, 112, 160
"""Where the frame holds these; of lists, the addresses of what is in them."""
DATA = 24
"""Where a buffer holds the address of its numbers."""
TABLE = 16
"""Where an array that is an attribute holds the address of its numbers."""
METADATA, VERSION, VERSION_OF_INTERFACE = 24, 24, 32
SCHEDULE, NUM_THREADS = 136, 144
"""Where the interface holds these functions."""

FRAME, COUNT, NEXT, DONE, HOLDERS, RECORD = range(0, 48, 8)
"""The record of a call, which outlives it until the last thread has let go of it."""

malloc, free = address_of("jaxcnn_malloc"), address_of("jaxcnn_free")


@loop
def asks_for_version(frame):
    """XLA first asks for which version of its interface a function was made: its own."""
    extension = load64(frame + EXTENSION)
    if extension == 0 or load32(extension + 8) != 1:
        return False
    interface, answer = load64(frame + INTERFACE), load64(extension + METADATA)
    store32(answer + VERSION, load32(interface + VERSION_OF_INTERFACE))
    store32(answer + VERSION + 4, load32(interface + VERSION_OF_INTERFACE + 4))
    return True


@loop
def array(frame, which, number):
    """The address of the numbers of an argument or a result."""
    return load64(load64(load64(frame + which) + 8 * number) + DATA)


@loop
def table_of(frame):
    """The address of the table, the only attribute."""
    return load64(load64(load64(frame + ATTRIBUTES)) + TABLE)


def functions(compute: Callable[..., None]) -> dict[str, Callable]:
    """By name: what computes a part, what runs on a thread, and what XLA calls, in Python.

    The second and the third call the first by its name, so that it is compiled once.
    """
    compute_part, on_thread = address_of("jaxcnn_part"), address_of("jaxcnn_thread")

    def part_of_frame(frame, part):
        table = table_of(frame)
        A, C = array(frame, ARGUMENTS, 0), array(frame, RESULTS, 0)
        winners, shift = load64(table + Header.WINNERS), load64(table + Header.SHIFT)
        # Of winners, the address that would belong to address 0.
        B, other = 0, 0
        if winners == NO_WINNERS:
            B, other = array(frame, ARGUMENTS, 1), array(frame, ARGUMENTS, 2)
        elif winners == FOUND:
            other = array(frame, RESULTS, 1) - (C >> shift)
        elif winners == GIVEN_FOR_A:
            other = array(frame, ARGUMENTS, 1) - (A >> shift)
        else:
            other = array(frame, ARGUMENTS, 1) - (C >> shift)
        compute(table, A, B, other, C, part)

    @loop
    def take_parts(record):
        """A frame is looked at only with a part in hand: before that it may be gone."""
        part = add_atomically(record + NEXT, 1)
        while part < load64(record + COUNT):
            call2(compute_part(), load64(record + FRAME), part)
            add_atomically(record + DONE, 1)
            part = add_atomically(record + NEXT, 1)

    @loop
    def let_go(record):
        if add_atomically(record + HOLDERS, -1) == 1:
            call(free(), record)

    def thread(record):
        take_parts(record)
        let_go(record)
        return 0

    def called_by_xla(frame):
        if asks_for_version(frame):
            return 0
        parts = load64(table_of(frame))
        request, interface = words(6), load64(frame + INTERFACE)
        threads = request + 40
        if parts > 1:
            store64(request, 32)
            store64(request + 8, 0)
            store64(request + 16, load64(frame + CONTEXT))
            store64(request + 24, threads)
            store64(threads, 0)
            call(load64(interface + NUM_THREADS), request)
        if parts == 1 or load64(threads) < 2:
            for part in range(parts):
                call2(compute_part(), frame, part)
            return 0
        helpers = min(load64(threads), parts) - 1
        record = call(malloc(), RECORD)
        store64(record + FRAME, frame)
        store64(record + COUNT, parts)
        store64(record + NEXT, 0)
        store64(record + DONE, 0)
        store64(record + HOLDERS, helpers + 1)
        store64(request, 40)
        store64(request + 24, on_thread())
        store64(request + 32, record)
        for _ in range(helpers):
            call(load64(interface + SCHEDULE), request)
        take_parts(record)
        while add_atomically(record + DONE, 0) < parts:
            pass
        let_go(record)
        return 0

    return {
        "jaxcnn_part": part_of_frame,
        "jaxcnn_thread": thread,
        "jaxcnn_run": called_by_xla,
    }

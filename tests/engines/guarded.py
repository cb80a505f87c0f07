"""Machine code, called between pages that nobody may touch.

A stand-in for ``jax.ffi.ffi_call`` that calls a compiled nest by itself, with a frame such
as XLA makes. Every array lies flush with a page that can neither be read nor written,
behind it or before it: what reads or writes beside an array ends the process.
"""

import ctypes
import mmap

import jax.numpy as jnp
import numpy as np

from jaxcnn.engines.loops import library

LIBC = ctypes.CDLL(None, use_errno=True)
WORD = ctypes.c_int64
NUM_THREADS = ctypes.CFUNCTYPE(WORD, ctypes.c_void_p)
RUN = ctypes.CFUNCTYPE(WORD, ctypes.c_void_p)


class Guarded:
    """Memory for an array, flush with a forbidden page.

    Args:
      array: what it holds.
      at_end: whether the forbidden page comes after the array, or before.
    """

    def __init__(self, array: np.ndarray, at_end: bool):
        page = mmap.PAGESIZE
        inside = -(-max(array.nbytes, 1) // page) * page
        self.memory = mmap.mmap(-1, inside + 2 * page)
        start = ctypes.addressof(ctypes.c_char.from_buffer(self.memory))
        for forbidden in (start, start + page + inside):
            if LIBC.mprotect(ctypes.c_void_p(forbidden), ctypes.c_size_t(page), 0):
                raise OSError(ctypes.get_errno(), "mprotect")
        self.address = start + page + (inside - array.nbytes if at_end else 0)
        self.array, self.bytes = array, array.nbytes
        ctypes.memmove(self.address, np.ascontiguousarray(array).ctypes.data, array.nbytes)

    def read(self) -> np.ndarray:
        content = ctypes.string_at(self.address, self.bytes)
        return np.frombuffer(content, self.array.dtype).reshape(self.array.shape)


def words(*values: int) -> ctypes.Array:
    return (WORD * len(values))(*values)


def pointer(array: ctypes.Array) -> int:
    return ctypes.addressof(array)


@NUM_THREADS
def no_threads(_):
    return 0


def guarded_call(at_end: bool):
    """A stand-in for ``ffi_call`` that runs a nest on guarded arrays, on this thread."""

    def ffi_call(name, results, **_):
        _, address = library.LOADED[name]
        several = isinstance(results, list)
        wanted = results if several else [results]

        def call(*operands, table):
            arguments = [Guarded(np.asarray(each), at_end) for each in operands]
            # What a result holds before: NaN, so that what is not written is seen.
            outputs = [
                Guarded(
                    np.full(
                        each.shape, 99 if each.dtype.kind == "i" else np.nan, each.dtype
                    ),
                    at_end,
                )
                for each in wanted
            ]
            kept = []

            def keep(*values):
                kept.append(words(*values))
                return pointer(kept[-1])

            def buffers(guarded):
                each = [keep(48, 0, 0, one.address) for one in guarded]
                return keep(*each)

            table = np.ascontiguousarray(table)
            attribute = keep(0, table.size, table.ctypes.data)
            interface = [0] * 19
            interface[18] = ctypes.cast(no_threads, ctypes.c_void_p).value
            frame = [0] * 22
            frame[2] = keep(*interface)
            frame[9], frame[14] = buffers(arguments), buffers(outputs)
            frame[20] = keep(attribute)
            assert RUN(address)(keep(*frame)) == 0
            found = [jnp.asarray(each.read()) for each in outputs]
            return found if several else found[0]

        return call

    return ffi_call

"""Compiled nests: made once for a machine, kept on disk, given to XLA.

numba turns the nests' Python into LLVM's instructions, and llvmlite, which comes with it,
makes machine code of them. The code is kept in a folder of the user's, under a name that
says what it was made from and for which processor; where it is found, numba isn't even
imported. A file that is damaged is made anew. One that cannot be written is done without.
"""

import ctypes
import hashlib
import os
import tempfile
from collections.abc import Callable
from contextlib import suppress
from functools import cache
from importlib.metadata import version
from pathlib import Path
from threading import Lock
from typing import Any

import jax
import numpy as np

from jaxcnn.engines.loops import processor

DIGEST = hashlib.sha256().digest_size


def at_hand() -> str | None:
    """Why loops cannot be compiled here; None if they can."""
    if os.environ.get("JAXCNN_LOOPS") == "0":
        return "is switched off by JAXCNN_LOOPS=0"
    if not processor.is_installed():
        return "wants numba: pip install 'jaxcnn[cpu]'"
    if processor.vectors() is None:
        return "wants a processor with AVX2 and FMA, or with NEON"
    return None


def target(
    nest: str,
    kind: str,
    dtypes: tuple[np.dtype, np.dtype, np.dtype],
    winner: np.dtype | None = None,
    is_partial: bool = False,
) -> str:
    """The name under which XLA finds a nest, compiled and registered when first asked for.

    Args:
      nest: one of those in :mod:`.nests`.
      kind, dtypes, winner: of its tiles.
      is_partial: whether the channels are no multiple of a vector.
    """
    name = "jaxcnn_" + _name(nest, kind, dtypes, winner, is_partial)
    with _one_at_a_time:
        if name not in LOADED:
            LOADED[name] = _registered(name, nest, (kind, dtypes, winner), is_partial)
    return name


def _registered(name: str, nest: str, of: tuple, is_partial: bool) -> tuple[Any, int]:
    objects = [
        _machine_code(_name(nest, is_partial=is_partial), _compiled_nest, nest, is_partial),
        _machine_code(_name("tiles", *of), _compiled_tiles, *of, False),
    ]
    if is_partial:
        partial = _name("tiles", *of, is_partial=True)
        objects.append(_machine_code(partial, _compiled_tiles, *of, True))
    engine, address = _loaded(objects)
    capsule = ctypes.pythonapi.PyCapsule_New
    capsule.restype = ctypes.py_object
    capsule.argtypes = [ctypes.c_void_p, ctypes.c_char_p, ctypes.c_void_p]
    jax.ffi.register_ffi_target(name, capsule(address, None, None), platform="cpu")
    return engine, address


def _name(
    what: str,
    kind: str = "",
    dtypes: tuple[np.dtype, ...] = (),
    winner: np.dtype | None = None,
    is_partial: bool = False,
) -> str:
    names = [each.name for each in (*dtypes, winner) if each]
    return "_".join(filter(None, [what, kind, *names, "partial" * is_partial]))


_one_at_a_time = Lock()
LOADED: dict[str, tuple[Any, int]] = {}
"""By name, what holds the machine code, as long as the process lives; and its address."""


# --- On disk --------------------------------------------------------------------------


def _machine_code(name: str, compiled: Callable[..., bytes], *of: Any) -> bytes:
    file = _folder() / f"{name}-{_version()}.o"
    with suppress(OSError):
        kept = file.read_bytes()
        digest, code = kept[:DIGEST], kept[DIGEST:]
        if hashlib.sha256(code).digest() == digest:
            return code
    code = compiled(*of)
    with suppress(OSError):
        file.parent.mkdir(parents=True, exist_ok=True)
        _write(file, hashlib.sha256(code).digest() + code)
    return code


def _write(file: Path, content: bytes) -> None:
    """All of it or nothing, whoever else writes the same file."""
    handle, partial = tempfile.mkstemp(dir=file.parent)
    try:
        with os.fdopen(handle, "wb") as stream:
            stream.write(content)
        os.replace(partial, file)
    except BaseException:
        os.unlink(partial)
        raise


def _folder() -> Path:
    chosen = os.environ.get("JAXCNN_CACHE_DIR")
    if chosen:
        return Path(chosen)
    of_user = os.environ.get("XDG_CACHE_HOME") or os.path.expanduser("~/.cache")
    return Path(of_user) / "jaxcnn"


@cache
def _version() -> str:
    """Of all that the machine code depends on."""
    made_of = hashlib.sha256()
    for source in sorted(Path(__file__).parent.glob("*.py")):
        made_of.update(source.read_bytes())
    for part in (*processor.name_and_features(), version("numba"), version("llvmlite")):
        made_of.update(part.encode())
    return made_of.hexdigest()[:24]


# --- Machine code -----------------------------------------------------------------------


def _target_machine() -> Any:
    import llvmlite.binding as llvm

    llvm.initialize_native_target()
    llvm.initialize_native_asmprinter()
    name, features = processor.name_and_features()
    triple = llvm.Target.from_triple(llvm.get_process_triple())
    return triple.create_target_machine(cpu=name, features=features, opt=3, jit=True)


OF_C = {"jaxcnn_malloc": "malloc", "jaxcnn_free": "free", "memset": "memset"}
"""What the machine code calls of C's library, and its name there."""


def _address(name: str) -> int:
    return ctypes.cast(getattr(ctypes.CDLL(None), name), ctypes.c_void_p).value or 0


def _compiled_tiles(
    kind: str,
    dtypes: tuple[np.dtype, np.dtype, np.dtype],
    winner: np.dtype | None,
    is_partial: bool,
) -> bytes:
    import llvmlite.binding as llvm

    from jaxcnn.engines.loops.tile import Tiles, module_of

    module = module_of(Tiles(kind, dtypes, winner), is_partial)
    return _optimized(llvm.parse_assembly(str(module)))


def _optimized(module: Any) -> bytes:
    """The machine code of a module."""
    import llvmlite.binding as llvm

    module.verify()
    machine = _target_machine()
    passes = llvm.create_pass_builder(machine, llvm.create_pipeline_tuning_options(2))
    passes.getModulePassManager().run(module, passes)
    return machine.emit_object(module)


def _compiled_nest(nest: str, is_partial: bool) -> bytes:
    import llvmlite.binding as llvm
    from numba import cfunc, types

    from jaxcnn.engines.loops import nests, xla_calls
    from jaxcnn.engines.loops.tile import NAMES

    functions = xla_calls.functions(getattr(nests, nest)(is_partial))
    for name in (
        *NAMES.values(),
        *functions,
        *OF_C,
    ):  # numba wants an address, and uses none
        llvm.add_symbol(name, _address("free"))
    whole = llvm.parse_assembly("")
    for name, function in functions.items():
        takes = [types.int64] * function.__code__.co_argcount
        gives = types.void if name == "jaxcnn_part" else types.int64
        compiled = cfunc(gives(*takes), error_model="numpy")(function)
        module = llvm.parse_assembly(compiled.inspect_llvm())
        module.get_function(compiled.native_name).name = name
        whole.link_in(module)
    for function in whole.functions:
        if not function.is_declaration and function.name not in functions:
            function.linkage = "internal"
    code = _optimized(whole)
    # Were there an exception, it would want Python, which is not there.
    if b"numba_do_raise" in code:
        raise AssertionError(f"the nest {nest} can raise an exception")
    return code


def _loaded(objects: list[bytes]) -> tuple[Any, int]:
    """What holds the machine code, and the address of the function that XLA calls."""
    import llvmlite.binding as llvm

    for name, of_c in OF_C.items():
        llvm.add_symbol(name, _address(of_c))
    engine = llvm.create_mcjit_compiler(llvm.parse_assembly(""), _target_machine())
    for code in objects:
        engine.add_object_file(llvm.ObjectFileRef.from_data(code))
    engine.finalize_object()
    return engine, engine.get_function_address("jaxcnn_run")

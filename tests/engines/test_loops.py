"""The compiled loops: random problems between forbidden pages, planted errors, the cache.

What every engine must do is in test_engines. These problems are drawn at random, and the
machine code runs on arrays that lie flush with pages that nobody may touch.
"""

import functools
import os
import subprocess
import sys
from dataclasses import dataclass, replace

import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest

import jaxcnn
from jaxcnn.engines import loops
from jaxcnn.engines.loops import library, processor, runs, tables
from jaxcnn.equations import winner_dtype
from jaxcnn.window import Window
from tests.engines.guarded import guarded_call

pytestmark = pytest.mark.skipif(
    library.at_hand() is not None, reason=str(library.at_hand())
)

LAYOUTS = {1: "NWC", 2: "NHWC", 3: "NDHWC"}


@dataclass(frozen=True)
class Drawn:
    """A random problem: of a convolution, whose window poolings use, too."""

    images: int
    size: tuple[int, ...]
    groups: int
    c_in: int
    c_out: int
    window: Window
    dtype: str

    @property
    def layout(self):
        return LAYOUTS[len(self.size)]


def draw(rng):
    while True:
        n = int(rng.choice([1, 2, 2, 3]))

        def some(low, high, count=n):
            return tuple(int(each) for each in rng.integers(low, high, count))

        size = some(1, {1: 40, 2: 14, 3: 7}[n])
        kernel = some(1, {1: 9, 2: 6, 3: 4}[n])
        if rng.random() < 0.1:  # so many taps that they are summed in several calls
            size, kernel = (3, *some(9, 13, 2)), (2, *some(9, 12, 2))
            n = 3
        padding = tuple(zip(some(-1, 4, n), some(-1, 4, n), strict=True))
        window = Window(kernel, some(1, 4, n), padding, some(1, 4, n))
        if 0 not in window.output_size(size):
            break
    groups = int(rng.choice([1, 1, 1, 2, 3, 8]))
    channels = [1, 2, 3, 5, 8, 16, 17, 33, 64, 70, 130]
    c_in = int(rng.choice([1, 1, 2, 3]) if groups > 2 else rng.choice(channels))
    c_out = int(rng.choice([1, 1, 2, 5]) if groups > 2 else rng.choice(channels))
    dtype = str(rng.choice(["float32", "float32", "float64", "bfloat16", "float16"]))
    images = int(rng.choice([1, 2, 3, 7]))
    return Drawn(images, size, groups, c_in, c_out, window, dtype)


class Reference:
    """The sums of one problem by NumPy, in float64, tap by tap."""

    def __init__(self, problem):
        self.p, self.w = problem, problem.window
        self.out = problem.window.output_size(problem.size)
        taps = list(np.ndindex(*self.w.kernel_size))
        self.taps = [(number, tap, self.places(tap)) for number, tap in enumerate(taps)]

    def places(self, tap):
        """Which outputs see something through a tap, and what: two tuples of slices."""
        inside, seen = [], []
        w, p = self.w, self.p
        for m, s, d, (low, _), h, n in zip(
            tap, w.stride, w.dilation, w.padding, p.size, self.out, strict=True
        ):
            at = s * np.arange(n) + d * m - low
            which = np.flatnonzero((at >= 0) & (at < h))
            if not len(which):
                return None
            inside.append(slice(which[0], which[-1] + 1))
            seen.append(slice(at[which[0]], at[which[-1]] + 1, s))
        return (slice(None), *inside), (slice(None), *seen)

    def grouped(self, x):
        return x.reshape(*x.shape[:-1], self.p.groups, -1)

    def forward(self, x, w):
        y = np.zeros((self.p.images, *self.out, self.p.groups, self.p.c_out))
        for _, tap, places in self.taps:
            if places:
                seen = self.grouped(x)[places[1]]
                y[places[0]] += np.einsum("...gi,igo->...go", seen, self.grouped(w[tap]))
        return y.reshape(*y.shape[:-2], -1)

    def input_gradient(self, dy, w):
        dx = np.zeros((self.p.images, *self.p.size, self.p.groups, self.p.c_in))
        for _, tap, places in self.taps:
            if places:
                arriving = self.grouped(dy)[places[0]]
                dx[places[1]] += np.einsum(
                    "...go,igo->...gi", arriving, self.grouped(w[tap])
                )
        return dx.reshape(*dx.shape[:-2], -1)

    def weight_gradient(self, x, dy):
        dw = np.zeros((*self.w.kernel_size, self.p.c_in, self.p.groups, self.p.c_out))
        for _, tap, places in self.taps:
            if places:
                seen, arriving = self.grouped(x)[places[1]], self.grouped(dy)[places[0]]
                seen, arriving = (x.reshape(-1, *x.shape[-2:]) for x in (seen, arriving))
                dw[tap] = np.einsum("bgi,bgo->igo", seen, arriving)
        return dw.reshape(*dw.shape[:-2], -1)

    def max_pool(self, x):
        y = np.full((self.p.images, *self.out, x.shape[-1]), -np.inf, x.dtype)
        winner = np.full(y.shape, -1, winner_dtype(self.w))
        for number, _, places in self.taps:
            if places:
                seen, best, who = x[places[1]], y[places[0]], winner[places[0]]
                who[seen > best] = number
                best[seen > best] = seen[seen > best]
        return y, winner

    def take_winners(self, x, winner):
        y = np.zeros((self.p.images, *self.out, x.shape[-1]))
        for number, _, places in self.taps:
            if places:
                y[places[0]] += np.where(winner[places[0]] == number, x[places[1]], 0)
        return y

    def max_pool_gradient(self, dy, winner):
        dx = np.zeros((self.p.images, *self.p.size, dy.shape[-1]))
        for number, _, places in self.taps:
            if places:
                dx[places[1]] += np.where(winner[places[0]] == number, dy[places[0]], 0)
        return dx

    def average_pool(self, x):
        y = np.zeros((self.p.images, *self.out, x.shape[-1]))
        for _, _, places in self.taps:
            if places:
                y[places[0]] += x[places[1]]
        return y / DIVISOR

    def average_pool_gradient(self, dy):
        dx = np.zeros((self.p.images, *self.p.size, dy.shape[-1]))
        for _, _, places in self.taps:
            if places:
                dx[places[1]] += dy[places[0]]
        return dx / DIVISOR


DIVISOR = 3


def compared(rng, problem):
    """For each function of the engine, its results and those of the reference."""
    p, known = problem, {"window": problem.window, "layout": problem.layout}
    by_numpy = Reference(problem)

    def normal(*shape):
        return rng.standard_normal(shape).astype(jnp.dtype(p.dtype)).astype(np.float64)

    x, w, dy, ds = (
        normal(p.images, *p.size, p.groups * p.c_in),
        normal(*p.window.kernel_size, p.c_in, p.groups * p.c_out),
        normal(p.images, *by_numpy.out, p.groups * p.c_out),
        normal(p.images, *by_numpy.out, p.groups * p.c_in),
    )
    _, winner = by_numpy.max_pool(x)
    grouped, of_input = {**known, "groups": p.groups}, {**known, "input_size": p.size}
    for name, operands, options in (
        ("forward", (x, w), grouped),
        ("weight_gradient", (x, dy), grouped),
        ("input_gradient", (dy, w), {**grouped, **of_input}),
        ("average_pool", (x,), {**known, "divisor": DIVISOR}),
        ("average_pool_gradient", (ds,), {**of_input, "divisor": DIVISOR}),
        ("max_pool", (x,), known),
        ("max_pool_gradient", (ds, winner), of_input),
        ("take_winners", (x, winner), known),
    ):
        given = (jnp.asarray(x, p.dtype if x.dtype == float else x.dtype) for x in operands)
        ours = getattr(loops, name)(*given, **options)
        wanted = getattr(by_numpy, name)(*operands)
        several = isinstance(wanted, tuple)
        pairs = zip(ours, wanted, strict=True) if several else [(ours, wanted)]
        for our, want in pairs:
            yield name, np.asarray(our), want


def disagreements(rng, problem):
    """The functions whose results aren't those of the equations."""
    terms = problem.window.number_of_taps * max(problem.c_in, problem.c_out)
    terms = max(terms, problem.images * np.prod(problem.window.output_size(problem.size)))
    for name, our, want in compared(rng, problem):
        assert our.shape == want.shape, name
        if name == "max_pool":
            if not np.array_equal(our, want):
                yield name
            continue
        # So many terms of order 1, added in another order; of a winner, only a few.
        allowed = 8 * float(jnp.finfo(our.dtype).eps) * max(terms, 8) ** 0.5 * 4
        if our.dtype.itemsize == 2:  # rounded once, to the nearest
            allowed = float(jnp.finfo(our.dtype).eps) / 2 * 1.01
        off = np.abs(our.astype(float) - want)
        if not np.all(off <= allowed * max(1, np.abs(want).max())):
            yield name


HASWELL = "haswell", "+avx,+avx2,+bmi,+bmi2,+f16c,+fma,+popcnt,+sse4.2"
"""A processor whose vectors have 256 bits, and that multiplies no pairs."""


def try_problems(seed, count, on=None):
    """Run as a program of its own, which a fault ends; on this processor or another."""
    if on:
        processor.name_and_features = lambda: on
        processor.vectors.cache_clear()
        processor.multiplies_pairs.cache_clear()
    rng = np.random.default_rng(seed)
    for number in range(count):
        problem = draw(rng)
        loops.ffi_call = guarded_call(at_end=bool(number % 2))
        print(problem, flush=True)
        for name in disagreements(rng, problem):
            print("WRONG", name, flush=True)
            sys.exit(1)


@pytest.mark.parametrize(
    ("seed", "count"),
    [(0, 25), *(pytest.param(seed, 250, marks=pytest.mark.slow) for seed in range(1, 5))],
)
@pytest.mark.parametrize("on", [None, HASWELL], ids=["this processor", "Haswell"])
def test_random_problems_between_forbidden_pages(seed, count, on):
    if on and "+avx2" not in processor.name_and_features()[1]:
        pytest.skip("this processor runs no code for that one")
    program = (
        "from tests.engines.test_loops import try_problems; "
        f"try_problems({seed}, {count}, {on})"
    )
    environment = {**os.environ, "JAX_ENABLE_X64": "1"}
    done = subprocess.run(
        [sys.executable, "-c", program],
        check=False,
        capture_output=True,
        text=True,
        env=environment,
    )
    last = "\n".join(done.stdout.splitlines()[-2:])
    assert done.returncode == 0, (
        f"exit status {done.returncode}: {last}\n{done.stderr[-2000:]}"
    )


@pytest.mark.skipif(not processor.multiplies_pairs(), reason="needs AVX512-BF16")
@pytest.mark.parametrize("layout", ["NHWC", "NCHW"])
@pytest.mark.parametrize(("c_in", "c_out", "groups"), [(3, 20, 1), (12, 8, 2), (6, 10, 2)])
def test_pairs_multiply_what_one_by_one_does(rng, monkeypatch, layout, c_in, c_out, groups):
    def normal(*shape):
        return jnp.asarray(rng.standard_normal(shape), jnp.bfloat16)

    x = normal(3, *((9, 8, c_in) if layout == "NHWC" else (c_in, 9, 8)))
    w_shape = (3, 3, c_in // groups, c_out)
    w = normal(*(w_shape if layout == "NHWC" else w_shape[::-1]))
    known = {"layout": layout, "groups": groups, "engine": "loops", "stride": 2}

    def all_sums(x, w, dy):
        y, gradients = jax.vjp(lambda x, w: jaxcnn.conv2d(x, w, **known), x, w)
        return y, gradients(dy.astype(y.dtype))

    dy = normal(*jax.eval_shape(lambda: jaxcnn.conv2d(x, w, **known)).shape)
    in_pairs = jax.jit(all_sums)(x, w, dy)
    monkeypatch.setattr(processor, "multiplies_pairs", lambda: False)
    jax.clear_caches()
    one_by_one = jax.jit(all_sums)(x, w, dy)
    # Both are rounded once, from sums that differ by less than a thousandth of that.
    chex.assert_trees_all_close(in_pairs, one_by_one, rtol=2**-7, atol=1e-2)


# --- Planted errors -------------------------------------------------------------------
#
# One mistake each, in the geometry and in what the loops run over: a comparison that finds
# nothing proves little until it is known to find something.


def without_the_last(runs_of):
    return lambda *each: runs_of(*each)[:-1]


def one_off(runs_of):
    return lambda *each: [replace(run, source=run.source + 1) for run in runs_of(*each)]


def changed(field, change, layout):
    """A table in which one field of the header is another."""

    def change_table(make):
        def made(*given, **known):
            table = make(*given, **known)
            table, *rest = table if isinstance(table, tuple) else (table,)
            at = getattr(layout, field) // 8
            table[at] = change(table[at])
            return (table, *rest) if rest else table

        return made

    return change_table


PLANTED = {
    "a border is forgotten": ("over_outputs", without_the_last, "forward"),
    "a border is forgotten, backwards": ("over_inputs", without_the_last, "input_gradient"),
    "a rest of channels is forgotten": (
        "over_taps",
        changed("LAST", lambda last: last - 1, tables.OverTaps),
        "forward",
    ),
    "an image is forgotten": (
        "over_taps",
        changed("IMAGES", lambda images: images - 1, tables.OverTaps),
        "max_pool",
    ),
    "a part is forgotten": (
        "over_taps",
        changed("PARTS", lambda parts: parts - 1, tables.OverTaps),
        "forward",
    ),
    "a block of positions is forgotten": (
        "over_positions",
        changed("BLOCKS", lambda blocks: blocks - 1, tables.OverPositions),
        "weight_gradient",
    ),
    "a tap is forgotten": (
        "over_positions",
        changed("PIECES", lambda pieces: pieces - 1, tables.OverPositions),
        "weight_gradient",
    ),
    "a group is forgotten": (
        "over_positions",
        changed("GROUPS", lambda groups: groups - 1, tables.OverPositions),
        "weight_gradient",
    ),
}
PROBLEM = Drawn(
    3, (9, 8), 2, 5, 18, Window((3, 3), (2, 1), ((1, 1), (1, 2)), (1, 1)), "float32"
)


@pytest.mark.parametrize("error", PLANTED)
def test_a_planted_error_is_found(monkeypatch, error):
    where, plant, found_in = PLANTED[error]
    monkeypatch.setattr(loops, "ffi_call", guarded_call(at_end=True))
    assert not list(disagreements(np.random.default_rng(0), PROBLEM))
    monkeypatch.setattr(tables, where, plant(getattr(tables, where)))
    assert found_in in set(disagreements(np.random.default_rng(0), PROBLEM))


# --- Threads --------------------------------------------------------------------------


def test_the_result_is_the_same_bits_on_any_number_of_threads():
    program = """
import hashlib, jax, jax.numpy as jnp, jaxcnn
x = jax.random.normal(jax.random.key(0), (16, 12, 12, 40))
w = jax.random.normal(jax.random.key(1), (3, 3, 40, 40))
def both(x, w):
    conv = lambda x, w: jaxcnn.conv2d(x, w, layout="NHWC", engine="loops")
    y, pullback = jax.vjp(conv, x, w)
    return y, *pullback(y)
digest = hashlib.sha256()
for _ in range(5):
    for each in jax.jit(both)(x, w):
        digest.update(each.tobytes())
    print(digest.hexdigest())
"""
    digests = set()
    for threads in (1, 2, 16):
        environment = {**os.environ, "PYTHONPATH": os.getcwd()}
        environment["XLA_FLAGS"] = f"--xla_cpu_multi_thread_eigen={threads > 1}".lower()
        environment["NPROC"] = str(threads)  # of XLA's thread pool
        done = subprocess.run(
            [sys.executable, "-c", program],
            check=True,
            capture_output=True,
            env=environment,
        )
        digests.add(done.stdout)
    assert len(digests) == 1


def test_two_calls_at_once_and_many_small_ones(rng):
    """Calls that XLA may make side by side, again and again."""
    x, w = (
        jnp.asarray(rng.standard_normal(shape, "float32"))
        for shape in ((8, 9, 9, 32), (3, 3, 32, 32))
    )
    conv = functools.partial(jaxcnn.conv2d, layout="NHWC", padding=1, engine="loops")
    side_by_side = jax.jit(lambda x, w: [conv(k * x, w) for k in range(1, 5)])
    wanted = conv(x, w)

    def step(sum_, _):
        return sum_ + conv(x[:1], w).sum(), None

    for _ in range(100):
        for k, y in enumerate(side_by_side(x, w), 1):
            # The same sums of products that are k times as large: three roundings apart.
            chex.assert_trees_all_close(y, k * wanted, rtol=1e-5, atol=1e-4)
    small, _ = jax.jit(lambda: jax.lax.scan(step, 0.0, length=500))()
    chex.assert_trees_all_close(small, 500 * conv(x[:1], w).sum(), rtol=1e-3)


# --- Where they are chosen ------------------------------------------------------------

X, W = np.ones((8, 6, 6, 3), "float32"), np.ones((3, 3, 3, 4), "float32")


def conv(x, w, **options):
    return jaxcnn.conv2d(x, w, layout="NHWC", **options)


def calls_loops(lowered):
    return "jaxcnn_sum_over" in lowered.as_text()


def test_programs_for_this_cpu_call_them():
    assert calls_loops(jax.jit(functools.partial(conv)).lower(X, W))
    assert not calls_loops(jax.jit(lambda x, w: conv(x, w, engine="equations")).lower(X, W))


@pytest.mark.parametrize("platform", ["cuda", "rocm", "tpu"])
def test_programs_for_other_platforms_do_not(platform):
    traced = jax.jit(functools.partial(conv)).trace(X, W)
    assert not calls_loops(traced.lower(lowering_platforms=(platform,)))


def test_exported_programs_do_not():
    exported = jax.export.export(jax.jit(functools.partial(conv)))(X, W)
    assert "jaxcnn_sum_over" not in exported.mlir_module()
    with pytest.raises(
        ValueError, match="'loops', which is compiled for this machine, and"
    ):
        jax.export.export(jax.jit(lambda x, w: conv(x, w, engine="loops")))(X, W)


def test_arrays_on_several_devices_do_not_but_each_device_in_shard_map_does():
    mesh = jax.make_mesh((8,), ("b",), (jax.sharding.AxisType.Auto,))
    spread = jax.device_put(X, jax.NamedSharding(mesh, jax.P("b")))
    assert not calls_loops(jax.jit(functools.partial(conv)).lower(spread, W))
    with pytest.raises(ValueError, match="'loops', which computes on one device"):
        jax.jit(lambda x, w: conv(x, w, engine="loops")).lower(spread, W)
    of_each = jax.shard_map(
        functools.partial(conv),
        mesh=mesh,
        in_specs=(jax.P("b"), jax.P()),
        out_specs=jax.P("b"),
    )
    assert calls_loops(jax.jit(of_each).lower(spread, W))
    np.testing.assert_array_equal(jax.jit(of_each)(spread, W), conv(X, W))


def test_without_numba_everything_works_and_the_engine_says_what_it_wants(monkeypatch):
    monkeypatch.setattr(library.processor, "is_installed", lambda: False)
    assert not calls_loops(jax.jit(functools.partial(conv)).lower(X, W))
    with pytest.raises(ValueError, match=r"'loops', which wants numba: pip install"):
        conv(X, W, engine="loops")
    assert "loops" not in jaxcnn.explain(jaxcnn.conv2d, (8, 3, 6, 6), (4, 3, 3, 3))


def test_a_stride_with_too_many_positions_is_left_to_other_engines():
    x, w, stride = (1, 1, 2), (1, 1, 3), 2**20
    engines = jaxcnn.explain(jaxcnn.conv_transpose1d, x, w, stride=stride)
    assert "input gradient: " in engines and "input gradient: loops" not in engines
    with pytest.raises(
        ValueError, match="'loops', which writes down no more than 16384 runs"
    ):
        jaxcnn.conv_transpose1d(jnp.ones(x), jnp.ones(w), stride=stride, engine="loops")


def test_no_more_runs_are_written_down_than_are_counted(rng):
    for _ in range(200):
        problem = draw(rng)
        window, size = problem.window, problem.size
        out = window.output_size(size)
        columns = window.kernel_size, window.stride, window.dilation, window.padding
        for of, is_transposed in ((runs.over_outputs, False), (runs.over_inputs, True)):
            found = [
                len(of(k, s, d, low, *sizes))
                for k, s, d, (low, _), *sizes in zip(*columns, size, out, strict=True)
            ]
            assert np.prod(found) <= runs.most(window, size, is_transposed)


def test_they_can_be_switched_off(monkeypatch):
    monkeypatch.setenv("JAXCNN_LOOPS", "0")
    assert not calls_loops(jax.jit(functools.partial(conv)).lower(X, W))
    with pytest.raises(
        ValueError, match="'loops', which is switched off by JAXCNN_LOOPS=0"
    ):
        conv(X, W, engine="loops")


def test_an_old_processor_is_refused(monkeypatch):
    monkeypatch.setattr(library.processor, "vectors", lambda: None)
    with pytest.raises(
        ValueError, match="wants a processor with AVX2 and FMA, or with NEON"
    ):
        conv(X, W, engine="loops")


@pytest.mark.parametrize("name", ["conv2d", "conv_transpose2d"])
@pytest.mark.parametrize("groups", [1, 3])
def test_a_bias_is_added_in_registers(rng, name, groups):
    x, b = (rng.standard_normal(shape, "float32") for shape in ((2, 5, 6, 3), (6,)))
    w = rng.standard_normal(
        (3, 3, 3 // groups, 6) if name == "conv2d" else (3, 3, 6 // groups, 3), "float32"
    )
    operation = functools.partial(getattr(jaxcnn, name), groups=groups, layout="NHWC")
    compiled = (
        jax.jit(functools.partial(operation, engine="loops")).lower(x, w, b).compile()
    )
    assert " add(" not in compiled.as_text()
    # Float32: 27 terms of order 1, added in another order.
    chex.assert_trees_all_close(
        compiled(x, w, b), operation(x, w, b, engine="equations"), rtol=1e-5, atol=1e-5
    )


# --- Machine code on disk -------------------------------------------------------------


@pytest.fixture
def machine_code(monkeypatch, tmp_path):
    """A cache of its own; and how often something was compiled."""
    monkeypatch.setenv("JAXCNN_CACHE_DIR", str(tmp_path / "cache"))
    compiled = []

    def compile_(*of):
        compiled.append(of)
        return b"code of " + repr(of).encode()

    def ask(name="nest"):
        return library._machine_code(name, compile_, name)

    return ask, compiled, tmp_path / "cache"


def test_machine_code_is_compiled_once(machine_code):
    ask, compiled, folder = machine_code
    assert ask() == ask() == b"code of ('nest',)"
    assert ask("another") != ask()
    assert compiled == [("nest",), ("another",)]
    assert len(list(folder.iterdir())) == 2


@pytest.mark.parametrize("damage", [b"", b"short", b"0" * 100])
def test_damaged_machine_code_is_compiled_anew(machine_code, damage):
    ask, compiled, folder = machine_code
    wanted = ask()
    (file,) = folder.iterdir()
    whole = file.read_bytes()
    file.write_bytes(damage or whole[:-1] + b"?")
    assert ask() == wanted
    assert compiled == [("nest",)] * 2
    assert file.read_bytes() == whole


def test_a_cache_that_cannot_be_written_is_done_without(machine_code, monkeypatch):
    ask, compiled, folder = machine_code
    folder.write_text("a file where the folder should be")
    assert ask() == ask()
    assert len(compiled) == 2
    assert folder.read_text() == "a file where the folder should be"


def test_machine_code_of_another_processor_is_another_file(machine_code, monkeypatch):
    ask, compiled, folder = machine_code
    ask()
    library._version.cache_clear()
    monkeypatch.setattr(library.processor, "name_and_features", lambda: ("z80", "+ldir"))
    ask()
    library._version.cache_clear()
    assert len(compiled) == len(list(folder.iterdir())) == 2


def test_importing_jaxcnn_imports_no_numba_and_a_kept_nest_neither():
    program = """
import sys, jax.numpy as jnp, jaxcnn
assert "numba" not in sys.modules and "llvmlite" not in sys.modules
conv = lambda: jaxcnn.conv2d(jnp.ones((1, 1, 5, 5)), jnp.ones((1, 1, 3, 3)), engine="loops")
print(float(conv().sum()), "numba" in sys.modules)
"""
    environment = {**os.environ, "PYTHONPATH": os.getcwd()}
    run = functools.partial(
        subprocess.run, [sys.executable, "-c", program], check=True, capture_output=True
    )
    run(env=environment)  # compiles what is not yet kept
    assert run(env=environment).stdout == b"81.0 False\n"


def test_a_nest_calls_nothing_of_pythons():
    for nest in ("sum_over_taps", "sum_over_positions"):
        code = library._compiled_nest(nest, True)
        assert b"Py" not in code.replace(b"_3clocals", b"") and b"NRT_" not in code

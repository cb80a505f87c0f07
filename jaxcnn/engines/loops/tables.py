"""What the nests run over, written down for one convolution: tables of int64.

A table tells a compiled nest how large everything is and where it lies, in bytes. It is an
attribute of the call in the compiled program, and made once, when a program is lowered.

    sum over taps        header, rectangles
    sum over positions   header, pieces, blocks

Rectangles and pieces begin with the strides of their tiles (:mod:`.tile`).
"""

from collections import namedtuple
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from itertools import product
from math import prod
from operator import mul
from typing import Any

import numpy as np

from jaxcnn.engines.loops.processor import (
    CHANNELWISE,
    MAXIMUM,
    MOST_VECTORS,
    PAIRED,
    PLACING,
    PRODUCT,
    TAKING,
    lanes,
    most_rows,
)
from jaxcnn.engines.loops.runs import ONE, Run, over_inputs, over_outputs
from jaxcnn.equations import winner_dtype
from jaxcnn.rounding import sum_dtype
from jaxcnn.window import Window

CACHE = 512 * 1024
"""Bytes of weights that stay in a core's own cache while images stream by."""
MANY_TERMS = 96
"""Longer sums are summed row of taps by row of taps: rounding errors stay small."""
POSITIONS_AT_ONCE = 200
"""Positions whose channels stay in the first caches while all taps look at them."""
PART = 4e6
"""Multiplications and additions worth a part of their own: some 20 microseconds."""
MOST_PARTS = 64
MOST_SUMS = 16
"""For so many parts a weight gradient is summed by itself."""
SHORT = 6
"""Fewer positions in a row leave a tile half empty."""
FEW_CHANNELS = 8
"""With fewer, the rows of a weight gradient's tile take in the neighbouring taps."""

# --- The records ------------------------------------------------------------------------


def _layout(name: str, fields: str, first: int = 0) -> Any:
    """Where each field of a record lies, in bytes; and how long it is."""
    names = [*fields.split(), "LENGTH"]
    return namedtuple(name, names)(*(8 * (first + k) for k in range(len(names))))


LEVELS = 4
"""How many loops a tile has."""
(ROW_OF_A, ROW_OF_C, VECTOR_OF_B, STEPS) = range(4)
"""The strides of a tile, in bytes. From STEPS on, for each loop from the outermost to the
innermost, a step in A and one in B."""
STRIDES = STEPS + 2 * LEVELS
_BOTH = """
    PARTS WINNERS SHIFT IMAGES GROUPS
    VECTORS VECTOR_BLOCKS LAST LANES ITEM MOST_ROWS MOST_ROWS_2 MOST_ROWS_3 MOST_ROWS_4
    IMAGE_OF_A GROUP_OF_A VECTOR_OF_A IMAGE_OF_B GROUP_OF_B VECTOR_OF_B
    IMAGE_OF_C GROUP_OF_C VECTOR_OF_C GROUP_OF_OTHER VECTOR_OF_OTHER
"""
Header = _layout("Header", _BOTH)
OverTaps = _layout(
    "OverTaps", _BOTH + "IMAGE_PARTS SLICES BLOCKS_AT_ONCE CHUNKS CHUNK RECTANGLES"
)
OverPositions = _layout(
    "OverPositions",
    _BOTH + "BLOCK_PARTS VECTOR_PARTS PART_OF_C ROWS_OF_C ROW_OF_C "
    "PIECES BLOCKS FIRST_BLOCK",
)
Rectangle = _layout(
    "Rectangle",
    "TAPS TAPS_1 TAPS_2 TAPS_3 CALLS FIRST_OF_A FIRST_OF_B FIRST_OF_C "
    "LAYERS LAYER_OF_A LAYER_OF_C ROWS ROW_OF_A ROW_OF_C POSITIONS ALONG_IMAGES",
    STRIDES,
)
"""Positions that see through the same taps."""
Piece = _layout(
    "Piece",
    "FIRST_OF_A FIRST_OF_B FIRST_OF_C ROWS LAYER LAYER_END ROW ROW_END POSITIONS",
    STRIDES,
)
"""Rows of C that see the same positions."""
Block = _layout("Block", "IMAGE IMAGES LAYER LAYER_END ROW ROW_END")
"""Positions of a few images, or of a part of one."""

NO_WINNERS, FOUND, GIVEN_FOR_A, GIVEN_FOR_C = range(4)
"""Whether there are winners: a second result, or the second argument."""
WINNERS = {
    PRODUCT: NO_WINNERS,
    PAIRED: NO_WINNERS,
    CHANNELWISE: NO_WINNERS,
    MAXIMUM: FOUND,
    PLACING: GIVEN_FOR_A,
    TAKING: GIVEN_FOR_C,
}


def _record(layout: Any, **values: int) -> list[int]:
    return [values[name] for name in layout._fields[:-1]]


def _table(header: list[int], *records: list[list[int]]) -> np.ndarray:
    rows = [header, *(record for each in records for record in each)]
    return np.array([number for row in rows for number in row], np.int64)


# --- What a table depends on ------------------------------------------------------------


Dtypes = tuple[np.dtype, np.dtype, np.dtype]
"""Of A, B and C in memory."""


@dataclass(frozen=True)
class Sizes:
    """All that a table depends on.

    Attributes:
      kind: of the tiles.
      images: B.
      window: of one to three dimensions.
      input_size, output_size: its positions.
      groups: of channels; 1 where channels do not mix.
      c_in, c_out: channels in each group.
      dtypes: of A, B and C in memory; a pair of halves is as long as a float32.
    """

    kind: str
    images: int
    window: Window
    input_size: tuple[int, ...]
    output_size: tuple[int, ...]
    groups: int
    c_in: int
    c_out: int
    dtypes: Dtypes

    @property
    def mixes(self) -> bool:
        """Whether every output channel is a sum over input channels."""
        return self.kind in (PRODUCT, PAIRED)

    @property
    def winner(self) -> np.dtype | None:
        """The dtype of winners, where there are some."""
        return None if WINNERS[self.kind] == NO_WINNERS else winner_dtype(self.window)

    @property
    def bytes_of(self) -> tuple[int, int, int]:
        """A number of A, of B and of C."""
        a, b, c = self.dtypes
        return a.itemsize, b.itemsize, c.itemsize

    @property
    def lanes(self) -> int:
        """How many numbers a vector has."""
        return lanes(sum_dtype(*self.dtypes))

    @property
    def kernel_size(self) -> tuple[int, ...]:
        return self.three(self.window.kernel_size)

    @property
    def taps(self) -> int:
        return prod(self.kernel_size)

    def three(self, sizes: tuple[int, ...]) -> tuple[int, ...]:
        """Of three dimensions; missing ones come first, and are of size 1."""
        return (1,) * (3 - len(sizes)) + sizes

    def runs(self, of: Callable[..., list[Run]]) -> list[list[Run]]:
        """Of each of three dimensions."""
        w, sizes = self.window, (self.input_size, self.output_size)
        each = zip(w.kernel_size, w.stride, w.dilation, w.padding, *sizes, strict=True)
        found = [of(k, s, d, low, size, out) for k, s, d, (low, _), size, out in each]
        return [[ONE]] * (3 - len(found)) + found

    def strides(
        self, spatial: tuple[int, ...], channels: int, size: int
    ) -> tuple[int, ...]:
        """The bytes of an image, a layer, a row and a position of a channels-last array.

        Its numbers have ``size`` bytes.
        """
        depth, height, width = self.three(spatial)
        position = channels * self.groups * size
        row = width * position
        return depth * height * row, height * row, row, position

    @property
    def parts(self) -> int:
        """How many parts the work has, however many threads there are."""
        positions = prod(self.output_size) * self.images * self.groups
        terms = positions * self.taps * self.c_out * (self.c_in if self.mixes else 8)
        return int(np.clip(2 * terms // PART, 1, MOST_PARTS))

    def header(self, channels: int) -> dict[str, int]:
        """What both kinds of tables say, for vectors of so many channels."""
        vectors = -(-channels // self.lanes)
        return {
            "WINNERS": WINNERS[self.kind],
            "SHIFT": 0,
            "IMAGES": self.images,
            "GROUPS": self.groups,
            "VECTORS": vectors,
            "VECTOR_BLOCKS": -(-vectors // MOST_VECTORS),
            "LAST": channels - (vectors - 1) * self.lanes,
            "LANES": self.lanes,
            "ITEM": self.bytes_of[2],
            **dict(zip(Header._fields[10:14], most_rows(self.kind), strict=True)),
            "VECTOR_OF_A": 0 if self.mixes else self.lanes * self.bytes_of[0],
            "VECTOR_OF_C": self.lanes * self.bytes_of[2],
        }


# --- Sums over taps ---------------------------------------------------------------------


def over_taps(sizes: Sizes, *, is_transposed: bool, of_ones: bool = False) -> np.ndarray:
    """The table of a sum over taps.

    Args:
      sizes: of the convolution or the pooling.
      is_transposed: whether it is over what outputs give to inputs.
      of_ones: whether every tap's weight is one, and B a vector of ones.
    """
    kernel = sizes.kernel_size
    a_size, c_size = sizes.input_size, sizes.output_size
    summed, channels = sizes.c_in, sizes.c_out
    if is_transposed:
        a_size, c_size, summed, channels = c_size, a_size, channels, summed
    in_bytes, of_b, out_bytes = sizes.bytes_of
    a = sizes.strides(a_size, summed, in_bytes)
    c = sizes.strides(c_size, channels, out_bytes)
    header = sizes.header(channels)
    vectors, blocks = header["VECTORS"], header["VECTOR_BLOCKS"]
    vector = sizes.lanes * of_b
    panel = sizes.taps * summed * vector
    winner = sizes.winner
    if sizes.mixes:  # panels of weights; where it is transposed, the last tap is the first
        tap_of_b, vector_of_b = summed * vector, panel
    elif winner:  # the numbers of taps
        tap_of_b, vector_of_b = 1, 0
    else:  # weights of each channel
        tap_of_b, vector_of_b = (0, 0) if of_ones else (channels * of_b, vector)
    taps_of_b = (kernel[1] * kernel[2] * tap_of_b, kernel[2] * tap_of_b, tap_of_b)
    # So many summed channels at once that their weights stay in the cache.
    at_once = max(CACHE * blocks // (sizes.taps * vector * vectors), 32)
    chunks = -(-summed // at_once) if sizes.mixes else 1
    chunk = -(-summed // chunks) if chunks > 1 else 0
    together = max(1, CACHE * blocks // (vectors * panel)) if sizes.mixes else blocks

    runs = sizes.runs(over_inputs if is_transposed else over_outputs)
    if is_transposed and sizes.mixes:
        runs = [[run.rotated(k) for run in of] for of, k in zip(runs, kernel, strict=True)]
    rectangles = []
    for each in product(*runs):
        layer, row, column = each
        counts = [run.taps for run in each]
        steps = [
            (run.source_per_tap * of_a, run.tap_step * of_b)
            for run, of_a, of_b in zip(each, a[1:], taps_of_b, strict=True)
        ]
        if not sizes.mixes:
            counts, steps = [1, *counts], [(0, 0), *steps]
        elif steps[2] == (summed * in_bytes, tap_of_b) and not chunk:
            # Channels of neighbouring taps lie side by side: one loop over all of them.
            counts, steps = [*counts[:2], 1, counts[2] * summed], [*steps[:2], (0, 0)]
            steps.append((in_bytes, vector))
        else:
            counts, steps = [*counts, summed], [*steps, (in_bytes, vector)]
        # A tile is along the longest of the row, the column and, where positions are few
        # and all in a row, the images.
        across, along = (row, a[2], c[2]), (column, a[3], c[3])
        is_short = column.count < SHORT
        along_images = is_short and layer.count == row.count == 1 and sizes.images >= SHORT
        if along_images:
            across, along = along, (replace(ONE, count=0), a[0], c[0])
        elif is_short and column.count < row.count:
            across, along = along, across
        strides = [
            along[0].source_step * along[1],
            along[0].step * along[2],
            vector_of_b,
            *[each for step in steps for each in step],
        ]
        is_long = counts[2] * counts[3] >= MANY_TERMS and not winner
        record = _record(
            Rectangle,
            **dict(zip(Rectangle._fields, counts, strict=False)),
            CALLS=max(counts[1], 1) if is_long else 1,
            FIRST_OF_A=_dot([run.source for run in each], a[1:]),
            FIRST_OF_B=_dot([run.tap for run in each], taps_of_b),
            FIRST_OF_C=_dot([run.first for run in each], c[1:]),
            LAYERS=layer.count,
            LAYER_OF_A=layer.source_step * a[1],
            LAYER_OF_C=layer.step * c[1],
            ROWS=across[0].count,
            ROW_OF_A=across[0].source_step * across[1],
            ROW_OF_C=across[0].step * across[2],
            POSITIONS=along[0].count,
            ALONG_IMAGES=int(along_images),
        )
        rectangles.append(strides + record)
    beside = in_bytes if sizes.kind == PLACING else out_bytes
    image_parts = min(sizes.images, sizes.parts)
    slices = -(-sizes.parts // image_parts)
    header |= {
        "PARTS": image_parts * slices,
        "SHIFT": (beside // winner.itemsize).bit_length() - 1 if winner else 0,
        "IMAGE_OF_A": a[0],
        "GROUP_OF_A": summed * in_bytes,
        "IMAGE_OF_B": 0,
        "GROUP_OF_B": vectors * panel,
        "VECTOR_OF_B": vector_of_b,
        "IMAGE_OF_C": c[0],
        "GROUP_OF_C": channels * out_bytes,
        "GROUP_OF_OTHER": channels * out_bytes,
        "VECTOR_OF_OTHER": 0 if winner else sizes.lanes * out_bytes,
        "IMAGE_PARTS": image_parts,
        "SLICES": slices,
        "BLOCKS_AT_ONCE": together,
        "CHUNKS": chunks,
        "CHUNK": chunk or max(record[STRIDES + 3] for record in rectangles),
        "RECTANGLES": len(rectangles),
    }
    return _table(_record(OverTaps, **header), rectangles)


def _dot(first: Sequence[int], second: Sequence[int]) -> int:
    return sum(a * b for a, b in zip(first, second, strict=True))


# --- Sums over positions ----------------------------------------------------------------


def over_positions(sizes: Sizes) -> tuple[np.ndarray, int]:
    """The table of a weight gradient, and how many sums there are for each weight."""
    kernel, (of_x, of_y, of_w) = sizes.kernel_size, sizes.bytes_of
    x = sizes.strides(sizes.input_size, sizes.c_in, of_x)
    y = sizes.strides(sizes.output_size, sizes.c_out, of_y)
    channels_in = sizes.c_in if sizes.mixes else 1
    row_of_c = sizes.c_out * sizes.groups * of_w
    vector_of_y = sizes.lanes * of_y
    stride, dilation = sizes.three(sizes.window.stride), sizes.three(sizes.window.dilation)
    steps = list(zip((x[0], *map(mul, stride, x[1:])), y, strict=True))
    layers, rows, columns = sizes.runs(over_outputs)
    between_taps = dilation[2] * x[3]
    if not sizes.mixes:  # a tile's rows are taps
        columns, row_of_a = [run for run in columns if run.taps], between_taps
    elif sizes.c_in < FEW_CHANNELS and between_taps == sizes.c_in * of_x:
        columns, row_of_a = [run for run in columns if run.taps], of_x
    else:  # a tile's rows are channels of one tap
        columns, row_of_a = _of_each_tap(columns, kernel[2]), of_x
    strides = [row_of_a, row_of_c, vector_of_y, *[each for step in steps for each in step]]
    pieces = []
    for layer, row, column in product(
        _of_each_tap(layers, kernel[0]), _of_each_tap(rows, kernel[1]), columns
    ):
        tap = (layer.tap * kernel[1] + row.tap) * kernel[2] + column.tap
        # Blocks count layers and rows from the first: what position 0 would see.
        sees = [
            run.source - s * run.first for run, s in zip((layer, row), stride, strict=False)
        ]
        record = _record(
            Piece,
            FIRST_OF_A=_dot([*sees, column.source], x[1:]),
            FIRST_OF_B=column.first * y[3],
            FIRST_OF_C=tap * channels_in * row_of_c,
            ROWS=column.taps * channels_in,
            LAYER=layer.first,
            LAYER_END=layer.first + layer.count,
            ROW=row.first,
            ROW_END=row.first + row.count,
            POSITIONS=column.count,
        )
        pieces.append(strides + record)
    blocks = _blocks(sizes)
    header = sizes.header(sizes.c_out)
    rows_of_c = sizes.taps * channels_in
    # Parts of the vectors come for nothing; for each part of the blocks there is a sum, and
    # all sums together are no larger than X and dY.
    vector_parts = min(sizes.parts, header["VECTOR_BLOCKS"])
    block_parts = min(
        -(-min(sizes.parts, MOST_SUMS) // vector_parts),
        len(blocks),
        max(1, sizes.images * (x[0] + y[0]) // (rows_of_c * row_of_c)),
    )
    header |= {
        "PARTS": block_parts * vector_parts,
        "IMAGE_OF_A": x[0],
        "GROUP_OF_A": sizes.c_in * of_x,
        "IMAGE_OF_B": y[0],
        "GROUP_OF_B": sizes.c_out * of_y,
        "VECTOR_OF_B": vector_of_y,
        "IMAGE_OF_C": 0,
        "GROUP_OF_C": sizes.c_out * of_w,
        "GROUP_OF_OTHER": 0,
        "VECTOR_OF_OTHER": 0,
        "BLOCK_PARTS": block_parts,
        "VECTOR_PARTS": vector_parts,
        "PART_OF_C": rows_of_c * row_of_c,
        "ROWS_OF_C": rows_of_c,
        "ROW_OF_C": row_of_c,
        "PIECES": len(pieces),
        "BLOCKS": len(blocks),
        "FIRST_BLOCK": OverPositions.LENGTH + len(pieces) * Piece.LENGTH,
    }
    return _table(_record(OverPositions, **header), pieces, blocks), block_parts


def _of_each_tap(runs: list[Run], k: int) -> list[Run]:
    """For each tap that sees something, all the positions that see through it."""
    found = []
    for m in range(k):
        seeing = [run for run in runs if run.tap <= m < run.tap + run.taps]
        if seeing:
            first, count = seeing[0], sum(run.count for run in seeing)
            source = first.source + (m - first.tap) * first.source_per_tap
            found.append(Run(first.first, count, 1, source, first.source_step, m, 1, 1, 1))
    return found


def _blocks(sizes: Sizes) -> list[list[int]]:
    """Blocks of some positions each: of several images, or of one, some of its rows."""
    depth, height, width = sizes.three(sizes.output_size)
    images = max(1, POSITIONS_AT_ONCE // (depth * height * width))
    layers = min(depth, max(1, POSITIONS_AT_ONCE // (height * width)))
    rows = min(height, max(1, POSITIONS_AT_ONCE // width))
    rows = -(-height // -(-height // rows))
    return [
        _record(
            Block,
            IMAGE=image,
            IMAGES=min(images, sizes.images - image),
            LAYER=layer,
            LAYER_END=min(layer + layers, depth),
            ROW=row,
            ROW_END=min(row + rows, height),
        )
        for image in range(0, sizes.images, images)
        for layer in range(0, depth, layers)
        for row in range(0, height, rows)
    ]

"""The document's loops around a tile: over images, channels, taps and positions.

Both nests are the same loops in another order. What they run over is in a table
(:mod:`.tables`), so that one compiled nest serves every convolution. A, B and C are
addresses; ``a``, ``b`` and ``c`` those of what the loops have come to.
"""

from collections.abc import Callable

from jaxcnn.engines.loops.addresses import caller_of_tiles, clear, load64, loop
from jaxcnn.engines.loops.tables import (
    ROW_OF_A,
    ROW_OF_C,
    STEPS,
    Block,
    OverPositions,
    OverTaps,
    Piece,
    Rectangle,
)


def _of_loop(level: int) -> tuple[int, int]:
    """Where a rectangle or a piece has a loop's steps in A and in B."""
    return 8 * (STEPS + 2 * level), 8 * (STEPS + 2 * level + 1)


ROWS_IN_A, ROWS_IN_C = 8 * ROW_OF_A, 8 * ROW_OF_C
TAP_OF_A, TAP_OF_B = LAYER_OF_A, LAYER_OF_B = _of_loop(1)
LINE_OF_A, LINE_OF_B = _of_loop(2)
CHANNEL_OF_A, CHANNEL_OF_B = _of_loop(3)


def sum_over_taps(is_partial: bool) -> Callable[..., None]:
    """Each position of C is the sum over the taps that see something of A, times B.

        for group, output channels and input channels whose weights stay in the cache:
            for image, and rectangle of positions that see through the same taps:
                for row of it, vectors of channels, and a few positions at a time:
                    C = the tile: Σ_taps Σ_channels A · B

    The forward sum, the input gradient, pooling and its gradients. A part of the work is
    some of the images, and a slice of the rows of each rectangle.
    """
    tile = caller_of_tiles(is_partial)
    H, R = OverTaps, Rectangle

    @loop
    def few_positions_at_a_time(table, r, v, end, a, b, other, c, k, first, count, images):
        """A row of a rectangle, vectors v to end, the k-th chunk of channels from first."""
        lanes, calls = load64(table + H.LANES), load64(r + R.CALLS)
        last = load64(table + H.LAST) if end == load64(table + H.VECTORS) else lanes
        most = load64(table + H.MOST_ROWS + 8 * (end - v - 1))
        n0, n1 = load64(r + R.TAPS), load64(r + R.TAPS_1) // calls
        n2, n3 = load64(r + R.TAPS_2), min(load64(r + R.TAPS_3) - first, count)
        left = images if load64(r + R.ALONG_IMAGES) else load64(r + R.POSITIONS)
        turns = (left + most - 1) // most
        while left > 0:
            rows = (left + turns - 1) // turns
            for call in range(calls):  # a long sum: row of taps by row of taps
                a_here = a + call * load64(r + TAP_OF_A)
                b_here = b + call * load64(r + TAP_OF_B)
                if k == 0 and call == 0:
                    added, step = other, 0
                else:
                    added, step = c, load64(r + ROWS_IN_C)
                tile(
                    rows,
                    end - v,
                    last,
                    lanes,
                    r,
                    a_here,
                    b_here,
                    c,
                    added,
                    step,
                    n0,
                    n1,
                    n2,
                    n3,
                )
            a += rows * load64(r + ROWS_IN_A)
            c += rows * load64(r + ROWS_IN_C)
            left -= rows
            turns -= 1

    @loop
    def rectangle(
        table, r, number, slice_, a, b, other, c, k, first_block, last_block, images
    ):
        """A slice of its rows, for some blocks of vectors."""
        slices, chunk = load64(table + H.SLICES), load64(table + H.CHUNK)
        vectors, blocks = load64(table + H.VECTORS), load64(table + H.VECTOR_BLOCKS)
        first = k * chunk
        a += load64(r + R.FIRST_OF_A) + first * load64(r + CHANNEL_OF_A)
        b += load64(r + R.FIRST_OF_B) + first * load64(r + CHANNEL_OF_B)
        c += load64(r + R.FIRST_OF_C)
        rows = load64(r + R.ROWS)
        every = load64(r + R.LAYERS) * rows
        turn = (slice_ + number) % slices  # so that short rectangles are for all
        for row in range(turn * every // slices, (turn + 1) * every // slices):
            z, y = row // rows, row % rows
            a_of_row = a + z * load64(r + R.LAYER_OF_A) + y * load64(r + R.ROW_OF_A)
            c_of_row = c + z * load64(r + R.LAYER_OF_C) + y * load64(r + R.ROW_OF_C)
            for block in range(first_block, last_block):
                v, end = block * vectors // blocks, (block + 1) * vectors // blocks
                few_positions_at_a_time(
                    table,
                    r,
                    v,
                    end,
                    a_of_row + v * load64(table + H.VECTOR_OF_A),
                    b + v * load64(table + H.VECTOR_OF_B),
                    other + v * load64(table + H.VECTOR_OF_OTHER),
                    c_of_row + v * load64(table + H.VECTOR_OF_C),
                    k,
                    first,
                    chunk,
                    images,
                )

    @loop
    def compute(table, A, B, other, C, part):
        slices, image_parts = load64(table + H.SLICES), load64(table + H.IMAGE_PARTS)
        image_part, slice_ = part // slices, part % slices
        images = load64(table + H.IMAGES)
        blocks, together = load64(table + H.VECTOR_BLOCKS), load64(table + H.BLOCKS_AT_ONCE)
        first = image_part * images // image_parts
        after = (image_part + 1) * images // image_parts
        for group in range(load64(table + H.GROUPS)):
            a_of_group = A + group * load64(table + H.GROUP_OF_A)
            b_of_group = B + group * load64(table + H.GROUP_OF_B)
            o_of_group = other + group * load64(table + H.GROUP_OF_OTHER)
            c_of_group = C + group * load64(table + H.GROUP_OF_C)
            for turn in range((blocks + together - 1) // together):
                first_block = turn * together
                last_block = min(first_block + together, blocks)
                for k in range(load64(table + H.CHUNKS)):
                    for image in range(first, after):
                        a = a_of_group + image * load64(table + H.IMAGE_OF_A)
                        c = c_of_group + image * load64(table + H.IMAGE_OF_C)
                        for number in range(load64(table + H.RECTANGLES)):
                            r = table + H.LENGTH + number * R.LENGTH
                            if load64(r + R.ALONG_IMAGES) and image > first:
                                continue  # its tiles are of all images at once
                            rectangle(
                                table,
                                r,
                                number,
                                slice_,
                                a,
                                b_of_group,
                                o_of_group,
                                c,
                                k,
                                first_block,
                                last_block,
                                after - first,
                            )

    return compute


def sum_over_positions(is_partial: bool) -> Callable[..., None]:
    """Each tap of C is the sum over images and positions of what it sees of A, times B.

        for block of positions, whose A and B stay in the cache:
            for group, vectors of output channels:
                for tap, and a few input channels at a time:
                    C += the tile: Σ_images Σ_positions A · B

    The weight gradient. A part of the work is some of the blocks, or of the vectors; each
    part of the blocks has a C of its own, which are added in the end.
    """
    tile = caller_of_tiles(is_partial)
    H, P, Q = OverPositions, Piece, Block

    @loop
    def few_channels_at_a_time(table, q, p, v, end, a, b, c):
        """A tap, as far as it sees something in a block of positions, vectors v to end."""
        z = max(load64(q + Q.LAYER), load64(p + P.LAYER))
        y = max(load64(q + Q.ROW), load64(p + P.ROW))
        layers = min(load64(q + Q.LAYER_END), load64(p + P.LAYER_END)) - z
        lines = min(load64(q + Q.ROW_END), load64(p + P.ROW_END)) - y
        if layers <= 0 or lines <= 0:
            return
        lanes = load64(table + H.LANES)
        last = load64(table + H.LAST) if end == load64(table + H.VECTORS) else lanes
        most = load64(table + H.MOST_ROWS + 8 * (end - v - 1))
        a += (
            load64(p + P.FIRST_OF_A)
            + z * load64(p + LAYER_OF_A)
            + y * load64(p + LINE_OF_A)
        )
        b += (
            load64(p + P.FIRST_OF_B)
            + z * load64(p + LAYER_OF_B)
            + y * load64(p + LINE_OF_B)
        )
        c += load64(p + P.FIRST_OF_C)
        images, positions, step = (
            load64(q + Q.IMAGES),
            load64(p + P.POSITIONS),
            load64(p + ROWS_IN_C),
        )
        left = load64(p + P.ROWS)
        turns = (left + most - 1) // most
        while left > 0:
            rows = (left + turns - 1) // turns
            tile(
                rows,
                end - v,
                last,
                lanes,
                p,
                a,
                b,
                c,
                c,
                step,
                images,
                layers,
                lines,
                positions,
            )
            a += rows * load64(p + ROWS_IN_A)
            c += rows * load64(p + ROWS_IN_C)
            left -= rows
            turns -= 1

    @loop
    def clear_vectors(table, C, v, end):
        """Set these vectors of every row of C to zero."""
        vector = load64(table + H.VECTOR_OF_C)
        width = (end - v) * vector
        if end == load64(table + H.VECTORS):
            unused = load64(table + H.LANES) - load64(table + H.LAST)
            width -= unused * load64(table + H.ITEM)
        for group in range(load64(table + H.GROUPS)):
            for row in range(load64(table + H.ROWS_OF_C)):
                in_group = C + group * load64(table + H.GROUP_OF_C)
                clear(in_group + row * load64(table + H.ROW_OF_C) + v * vector, width)

    @loop
    def compute(table, A, B, other, C, part):
        block_parts = load64(table + H.BLOCK_PARTS)
        vector_parts = load64(table + H.VECTOR_PARTS)
        block_part, vector_part = part // vector_parts, part % vector_parts
        count, vectors = load64(table + H.BLOCKS), load64(table + H.VECTORS)
        vector_blocks = load64(table + H.VECTOR_BLOCKS)
        first = vector_part * vector_blocks // vector_parts
        after = (vector_part + 1) * vector_blocks // vector_parts
        C += block_part * load64(table + H.PART_OF_C)
        clear_vectors(
            table, C, first * vectors // vector_blocks, after * vectors // vector_blocks
        )
        for number in range(
            block_part * count // block_parts, (block_part + 1) * count // block_parts
        ):
            q = table + load64(table + H.FIRST_BLOCK) + number * Q.LENGTH
            image = load64(q + Q.IMAGE)
            for group in range(load64(table + H.GROUPS)):
                a = A + group * load64(table + H.GROUP_OF_A)
                a += image * load64(table + H.IMAGE_OF_A)
                b = B + group * load64(table + H.GROUP_OF_B)
                b += image * load64(table + H.IMAGE_OF_B)
                c = C + group * load64(table + H.GROUP_OF_C)
                for block in range(first, after):
                    v = block * vectors // vector_blocks
                    end = (block + 1) * vectors // vector_blocks
                    for piece in range(load64(table + H.PIECES)):
                        few_channels_at_a_time(
                            table,
                            q,
                            table + H.LENGTH + piece * P.LENGTH,
                            v,
                            end,
                            a + v * load64(table + H.VECTOR_OF_A),
                            b + v * load64(table + H.VECTOR_OF_B),
                            c + v * load64(table + H.VECTOR_OF_C),
                        )

    return compute

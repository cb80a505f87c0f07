"""The document's loops around a tile: over images, channels, taps and positions.

Both nests are the same loops in another order. What they run over is in a table
(:mod:`.tables`), so that one compiled nest serves every convolution.
"""

from collections.abc import Callable

from jaxcnn.engines.loops.addresses import caller_of_tiles, clear, load64, loop
from jaxcnn.engines.loops.tables import Block, OverPositions, OverTaps, Piece, Rectangle
from jaxcnn.engines.loops.tile import LEVELS, STEPS


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
    def compute(table, A, B, other, C, part):
        slices, image_parts = load64(table + H.SLICES), load64(table + H.IMAGE_PARTS)
        image_part, slice_ = part // slices, part % slices
        images, chunk = load64(table + H.IMAGES), load64(table + H.CHUNK)
        blocks, together = load64(table + H.VECTOR_BLOCKS), load64(table + H.BLOCKS_AT_ONCE)
        vectors, lanes = load64(table + H.VECTORS), load64(table + H.LANES)
        first = image_part * images // image_parts
        after = (image_part + 1) * images // image_parts
        for group in range(load64(table + H.GROUPS)):
            a_of_group = A + group * load64(table + H.GROUP_OF_A)
            b_of_group = B + group * load64(table + H.GROUP_OF_B)
            o_of_group = other + group * load64(table + H.GROUP_OF_OTHER)
            c_of_group = C + group * load64(table + H.GROUP_OF_C)
            for turn_of_blocks in range((blocks + together - 1) // together):
                first_block = turn_of_blocks * together
                last_block = min(first_block + together, blocks)
                for k in range(load64(table + H.CHUNKS)):
                    for image in range(first, after):
                        a_of_image = a_of_group + image * load64(table + H.IMAGE_OF_A)
                        c_of_image = c_of_group + image * load64(table + H.IMAGE_OF_C)
                        for number in range(load64(table + H.RECTANGLES)):
                            r = table + H.LENGTH + number * R.LENGTH
                            calls = load64(r + R.CALLS)
                            n0, n1 = load64(r + R.TAPS), load64(r + R.TAPS + 8) // calls
                            tap_of_a = load64(r + 8 * (STEPS + 2))
                            tap_of_b = load64(r + 8 * (STEPS + 3))
                            n2 = load64(r + R.TAPS + 16)
                            n3 = min(load64(r + R.TAPS + 24) - k * chunk, chunk)
                            channel_of_a = load64(r + 8 * (STEPS + 2 * LEVELS - 2))
                            channel_of_b = load64(r + 8 * (STEPS + 2 * LEVELS - 1))
                            a_here = a_of_image + load64(r + R.FIRST_OF_A)
                            a_here += k * chunk * channel_of_a
                            b_here = b_of_group + load64(r + R.FIRST_OF_B)
                            b_here += k * chunk * channel_of_b
                            c_here = c_of_image + load64(r + R.FIRST_OF_C)
                            layers, rows = load64(r + R.LAYERS), load64(r + R.ROWS)
                            turn = (slice_ + number) % slices  # short ones are for all
                            for row in range(
                                turn * layers * rows // slices,
                                (turn + 1) * layers * rows // slices,
                            ):
                                z, y = row // rows, row % rows
                                a_of_row = a_here + z * load64(r + R.LAYER_OF_A)
                                a_of_row += y * load64(r + R.ROW_OF_A)
                                c_of_row = c_here + z * load64(r + R.LAYER_OF_C)
                                c_of_row += y * load64(r + R.ROW_OF_C)
                                for block in range(first_block, last_block):
                                    v = block * vectors // blocks
                                    end = (block + 1) * vectors // blocks
                                    last = lanes
                                    if end == vectors:
                                        last = load64(table + H.LAST)
                                    most = load64(table + H.MOST_ROWS + 8 * (end - v - 1))
                                    a = a_of_row + v * load64(table + H.VECTOR_OF_A)
                                    b = b_here + v * load64(table + H.VECTOR_OF_B)
                                    o = o_of_group + v * load64(table + H.VECTOR_OF_OTHER)
                                    c = c_of_row + v * load64(table + H.VECTOR_OF_C)
                                    left = load64(r + R.POSITIONS)
                                    turns = (left + most - 1) // most
                                    while left > 0:
                                        at_once = (left + turns - 1) // turns
                                        for tap in range(calls):
                                            added, step = o, 0
                                            if k > 0 or tap > 0:
                                                added, step = c, load64(r + 8)
                                            tile(
                                                at_once,
                                                end - v,
                                                last,
                                                lanes,
                                                r,
                                                a + tap * tap_of_a,
                                                b + tap * tap_of_b,
                                                c,
                                                added,
                                                step,
                                                n0,
                                                n1,
                                                n2,
                                                n3,
                                            )
                                        a += at_once * load64(r)
                                        c += at_once * load64(r + 8)
                                        left -= at_once
                                        turns -= 1

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
    def compute(table, A, B, other, C, part):
        block_parts, vector_parts = (
            load64(table + H.BLOCK_PARTS),
            load64(table + H.VECTOR_PARTS),
        )
        block_part, vector_part = part // vector_parts, part % vector_parts
        block_count, vectors = load64(table + H.BLOCKS), load64(table + H.VECTORS)
        per_tile, lanes = load64(table + H.VECTOR_BLOCKS), load64(table + H.LANES)
        C += block_part * load64(table + H.PART_OF_C)
        low = vector_part * per_tile // vector_parts * vectors // per_tile
        high = (vector_part + 1) * per_tile // vector_parts * vectors // per_tile
        width = (high - low) * load64(table + H.VECTOR_OF_C)
        if high == vectors:
            width -= (lanes - load64(table + H.LAST)) * load64(table + H.ITEM)
        for group in range(load64(table + H.GROUPS)):
            for row in range(load64(table + H.ROWS_OF_C)):
                at = (
                    C
                    + group * load64(table + H.GROUP_OF_C)
                    + row * load64(table + H.ROW_OF_C)
                )
                clear(at + low * load64(table + H.VECTOR_OF_C), width)
        for number in range(
            block_part * block_count // block_parts,
            (block_part + 1) * block_count // block_parts,
        ):
            q = table + load64(table + H.FIRST_BLOCK) + number * Q.LENGTH
            image, images = load64(q + Q.IMAGE), load64(q + Q.IMAGES)
            z0, z1 = load64(q + Q.LAYER), load64(q + Q.LAYER_END)
            y0, y1 = load64(q + Q.ROW), load64(q + Q.ROW_END)
            for group in range(load64(table + H.GROUPS)):
                for vector_block in range(
                    vector_part * per_tile // vector_parts,
                    (vector_part + 1) * per_tile // vector_parts,
                ):
                    v = vector_block * vectors // per_tile
                    end = (vector_block + 1) * vectors // per_tile
                    last = lanes
                    if end == vectors:
                        last = load64(table + H.LAST)
                    a = (
                        A
                        + group * load64(table + H.GROUP_OF_A)
                        + image * load64(table + H.IMAGE_OF_A)
                    )
                    a += v * load64(table + H.VECTOR_OF_A)
                    b = (
                        B
                        + group * load64(table + H.GROUP_OF_B)
                        + image * load64(table + H.IMAGE_OF_B)
                    )
                    b += v * load64(table + H.VECTOR_OF_B)
                    c = (
                        C
                        + group * load64(table + H.GROUP_OF_C)
                        + v * load64(table + H.VECTOR_OF_B)
                    )
                    for piece in range(load64(table + H.PIECES)):
                        p = table + H.LENGTH + piece * P.LENGTH
                        z = max(z0, load64(p + P.LAYER))
                        y = max(y0, load64(p + P.ROW))
                        layers = min(z1, load64(p + P.LAYER_END)) - z
                        rows = min(y1, load64(p + P.ROW_END)) - y
                        if layers <= 0 or rows <= 0:
                            continue
                        at = p + 8 * STEPS
                        a_here = a + load64(p + P.FIRST_OF_A)
                        a_here += z * load64(at + 16) + y * load64(at + 32)
                        b_here = b + load64(p + P.FIRST_OF_B)
                        b_here += z * load64(at + 24) + y * load64(at + 40)
                        c_here = c + load64(p + P.FIRST_OF_C)
                        left = load64(p + P.ROWS)
                        most = load64(table + H.MOST_ROWS + 8 * (end - v - 1))
                        turns = (left + most - 1) // most
                        while left > 0:
                            at_once = (left + turns - 1) // turns
                            tile(
                                at_once,
                                end - v,
                                last,
                                lanes,
                                p,
                                a_here,
                                b_here,
                                c_here,
                                c_here,
                                load64(p + 8),
                                images,
                                layers,
                                rows,
                                load64(p + P.POSITIONS),
                            )
                            a_here += at_once * load64(p)
                            c_here += at_once * load64(p + 8)
                            left -= at_once
                            turns -= 1

    return compute

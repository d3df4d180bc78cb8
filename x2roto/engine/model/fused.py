"""What a GPU does in one pass over memory where torch takes several: kernels in Triton, each beside a plain version
that is the truth. Imported only where there is a GPU and Triton, which torch's CUDA builds bring along.
"""

from __future__ import annotations

from contextlib import AbstractContextManager, nullcontext

import torch
import triton
import triton.language as tl
from torch import Tensor

TOKENS = 32  # that one program samples for
ROWS = 32  # that one program rotates
TILE = 4096  # numbers that one program normalises, or one row
QUERIES, KEYS = 64, 64  # that one program compares at a time
PART = 1024  # fewest keys of one program
PARTS = 16  # most programs for the same queries
CELLS = 1024  # that one program decides on
LOG2_E = tl.constexpr(1.4426950408889634)


def _device_of(tensor: Tensor) -> AbstractContextManager[None]:
    """Triton starts kernels on the current device, whatever its arguments are on."""
    return torch.cuda.device(tensor.device) if tensor.is_cuda else nullcontext()


@triton.jit
def _sample(
    values,
    offsets,
    logits,
    out,
    tokens,
    height_0,
    width_0,
    height_1,
    width_1,
    height_2,
    width_2,
    HEADS: tl.constexpr,
    POINTS: tl.constexpr,
    WIDTH: tl.constexpr,
    PADDED: tl.constexpr,
    BLOCK: tl.constexpr,
):
    """One head of BLOCK tokens of a frame reads POINTS places on each of three levels."""
    head = tl.program_id(1)
    frame = tl.program_id(2).to(tl.int64)
    token = tl.program_id(0) * BLOCK + tl.arange(0, BLOCK)
    there = token < tokens
    channel = tl.arange(0, PADDED)
    wide = channel < WIDTH
    start_1 = height_0 * width_0
    start_2 = start_1 + height_1 * width_1

    # Where the token stands, as a share of the picture.
    coarse, middle = token < start_1, (token >= start_1) & (token < start_2)
    width = tl.where(coarse, width_0, tl.where(middle, width_1, width_2))
    height = tl.where(coarse, height_0, tl.where(middle, height_1, height_2))
    cell = token - tl.where(coarse, 0, tl.where(middle, start_1, start_2))
    centre_x = ((cell % width).to(tl.float32) + 0.5) / width.to(tl.float32)
    centre_y = ((cell // width).to(tl.float32) + 0.5) / height.to(tl.float32)

    row = (frame * tokens + token) * HEADS + head
    places: tl.constexpr = 3 * POINTS
    most = tl.full((BLOCK,), -float("inf"), tl.float32)
    for place in tl.static_range(places):
        most = tl.maximum(most, tl.load(logits + row * places + place, mask=there, other=0.0).to(tl.float32))
    total = tl.zeros((BLOCK,), tl.float32)
    read = tl.zeros((BLOCK, PADDED), tl.float32)
    base = values + (frame * tokens * HEADS + head) * WIDTH + channel[None, :]
    for level in tl.static_range(3):
        if level == 0:
            start, rows, columns = 0, height_0, width_0
        elif level == 1:
            start, rows, columns = start_1, height_1, width_1
        else:
            start, rows, columns = start_2, height_2, width_2
        for point in tl.static_range(POINTS):
            place = level * POINTS + point
            share = tl.exp(tl.load(logits + row * places + place, mask=there, other=0.0).to(tl.float32) - most)
            total += share
            at = offsets + (row * places + place) * 2
            x = centre_x * columns + tl.load(at, mask=there, other=0.0).to(tl.float32) - 0.5
            y = centre_y * rows + tl.load(at + 1, mask=there, other=0.0).to(tl.float32) - 0.5
            left, top = tl.floor(x), tl.floor(y)
            x, y = x - left, y - top
            # Far out is outside all the same, and must not overflow.
            column = tl.minimum(tl.maximum(left, -2.0), columns.to(tl.float32)).to(tl.int32)
            line = tl.minimum(tl.maximum(top, -2.0), rows.to(tl.float32)).to(tl.int32)
            for corner in tl.static_range(4):
                over, below = corner % 2, corner // 2
                weight = (x if over else 1 - x) * (y if below else 1 - y) * share
                c, r = column + over, line + below
                inside = there & (c >= 0) & (c < columns) & (r >= 0) & (r < rows)
                where = (start + r * columns + c) * (HEADS * WIDTH)
                seen = tl.load(base + where[:, None], mask=inside[:, None] & wide[None, :], other=0.0)
                read += weight[:, None] * seen.to(tl.float32)
    read = read / total[:, None]
    kept = out + row[:, None] * WIDTH + channel[None, :]
    tl.store(kept, read.to(out.dtype.element_ty), mask=there[:, None] & wide[None, :])


def sample_levels(values_blc: Tensor, offsets: Tensor, logits: Tensor, sizes: tuple[tuple[int, int], ...]) -> Tensor:
    """As `pixel_decoder.sample_levels` with the softmax of `logits` as weights, (B, tokens, C) in the values' dtype.

    `offsets` (B, tokens, heads, 3, points, 2), `logits` (B, tokens, heads, 3 * points); three sizes (height, width).
    """
    batch, tokens, channels = values_blc.shape
    heads, points = offsets.shape[2], offsets.shape[4]
    width = channels // heads
    out = torch.empty_like(values_blc, memory_format=torch.contiguous_format)
    grid = (triton.cdiv(tokens, TOKENS), heads, batch)
    with _device_of(values_blc):
        _sample[grid](
            values_blc.contiguous(),
            offsets.contiguous(),
            logits.contiguous(),
            out,
            tokens,
            *(side for size in sizes for side in size),
            HEADS=heads,
            POINTS=points,
            WIDTH=width,
            PADDED=triton.next_power_of_2(width),
            BLOCK=TOKENS,
        )
    return out


@triton.jit
def _rotate(x, turns, out, rows, tokens, WIDTH: tl.constexpr, BLOCK: tl.constexpr):
    """BLOCK rows, each of whose pairs of channels is a complex number that its cell's turn multiplies."""
    row = tl.program_id(0).to(tl.int64) * BLOCK + tl.arange(0, BLOCK)
    there = (row < rows)[:, None]
    channel = tl.arange(0, WIDTH)[None, :]
    at = row[:, None] * WIDTH + channel
    pairs: tl.constexpr = (BLOCK, WIDTH // 2, 2)
    a, b = tl.split(tl.load(x + at, mask=there, other=0.0).to(tl.float32).reshape(pairs))
    where = (row % tokens)[:, None] * WIDTH + channel
    cosine, sine = tl.split(tl.load(turns + where, mask=there, other=0.0).reshape(pairs))
    turned = tl.join(a * cosine - b * sine, a * sine + b * cosine).reshape((BLOCK, WIDTH))
    tl.store(out + at, turned.to(out.dtype.element_ty), mask=there)


def rotate(x: Tensor, turns: Tensor) -> Tensor:
    """As `encodings.rotate`, for a power of two of channels."""
    x = x.contiguous()
    rows = x.numel() // x.shape[-1]
    out = torch.empty_like(x)
    grid = (triton.cdiv(rows, ROWS),)
    with _device_of(x):
        _rotate[grid](x, torch.view_as_real(turns), out, rows, len(turns), WIDTH=x.shape[-1], BLOCK=ROWS)
    return out


@triton.jit
def _normalise(
    x, added, weight, bias, out, rows, eps, WIDTH: tl.constexpr, PADDED: tl.constexpr, BLOCK: tl.constexpr
):
    """BLOCK rows of x, or of x + added, with mean 0 and variance 1, then scaled and shifted."""
    row = tl.program_id(0).to(tl.int64) * BLOCK + tl.arange(0, BLOCK)
    channel = tl.arange(0, PADDED)
    wide = channel < WIDTH
    there = (row < rows)[:, None] & wide[None, :]
    at = row[:, None] * WIDTH + channel[None, :]
    value = tl.load(x + at, mask=there, other=0.0).to(tl.float32)
    if added is not None:
        # Rounded, as a sum that is stored would be.
        value += tl.load(added + at, mask=there, other=0.0).to(tl.float32)
        value = value.to(out.dtype.element_ty).to(tl.float32)
    mean = tl.sum(value, 1) / WIDTH
    centred = tl.where(wide[None, :], value - mean[:, None], 0.0)
    scale = 1 / tl.sqrt(tl.sum(centred * centred, 1) / WIDTH + eps)
    gain = tl.load(weight + channel, mask=wide, other=0.0).to(tl.float32)
    shift = tl.load(bias + channel, mask=wide, other=0.0).to(tl.float32)
    result = centred * scale[:, None] * gain[None, :] + shift[None, :]
    tl.store(out + at, result.to(out.dtype.element_ty), mask=there)


def layer_norm(x: Tensor, weight: Tensor, bias: Tensor, eps: float, added: Tensor | None = None) -> Tensor:
    """Layer norm over the last axis of x, or of x + added."""
    x = x.contiguous()
    width = x.shape[-1]
    out = torch.empty_like(x)
    rows = x.numel() // width
    padded = triton.next_power_of_2(width)
    block = max(1, TILE // padded)
    with _device_of(x):
        _normalise[(triton.cdiv(rows, block),)](
            x,
            None if added is None else added.contiguous(),
            weight,
            bias,
            out,
            rows,
            eps,
            WIDTH=width,
            PADDED=padded,
            BLOCK=block,
        )
    return out


@triton.jit
def _allow(
    logits, allowed, somewhere, height, width, cells, HALF: tl.constexpr, STRIDE: tl.constexpr, BLOCK: tl.constexpr
):
    """For one query and BLOCK cells of a grid STRIDE times coarser than that of the logits: whether the mask's
    probability is at least one half there, as the logits' number format rounds it."""
    query = tl.program_id(1).to(tl.int64)
    cell = tl.program_id(0) * BLOCK + tl.arange(0, BLOCK)
    there = cell < cells
    at = logits + query * cells * STRIDE * STRIDE
    # Bilinear, the corners not aligned: of an even stride, the four around the middle.
    row, column = cell // width * STRIDE + HALF, cell % width * STRIDE + HALF
    value = tl.load(at + row * width * STRIDE + column, mask=there, other=0.0).to(tl.float32)
    if STRIDE > 1:
        value += tl.load(at + row * width * STRIDE + column + 1, mask=there, other=0.0).to(tl.float32)
        value += tl.load(at + (row + 1) * width * STRIDE + column, mask=there, other=0.0).to(tl.float32)
        value += tl.load(at + (row + 1) * width * STRIDE + column + 1, mask=there, other=0.0).to(tl.float32)
        value = (value / 4).to(logits.dtype.element_ty).to(tl.float32)
    probability = (1 / (1 + tl.exp(-value))).to(logits.dtype.element_ty)
    may = there & (probability >= 0.5)
    tl.store(allowed + query * cells + cell, may.to(tl.int8), mask=there)
    tl.atomic_max(somewhere + query, tl.max(may.to(tl.int32), 0))


@triton.jit
def _attend(
    q,
    k,
    v,
    allowed,
    somewhere,
    most_out,
    sum_out,
    read_out,
    queries,
    keys,
    scale,
    HEADS: tl.constexpr,
    WIDTH: tl.constexpr,
    ROWS: tl.constexpr,
    COLUMNS: tl.constexpr,
    STEPS: tl.constexpr,
):
    """ROWS queries of one head read, of STEPS * COLUMNS keys, those they may; to be joined with other parts."""
    section, parts = tl.program_id(0), tl.num_programs(0)
    blocks = tl.cdiv(queries, ROWS)
    head, block = tl.program_id(1) // blocks, tl.program_id(1) % blocks
    entry = tl.program_id(2).to(tl.int64)
    row = block * ROWS + tl.arange(0, ROWS)
    there = row < queries
    channel = tl.arange(0, WIDTH)
    stride: tl.constexpr = HEADS * WIDTH
    at = (entry * queries + row)[:, None] * stride + head * WIDTH + channel[None, :]
    query = tl.load(q + at, mask=there[:, None], other=0.0)
    anywhere = tl.load(somewhere + entry * queries + row, mask=there, other=0) == 0
    most = tl.full((ROWS,), -1e30, tl.float32)
    total = tl.zeros((ROWS,), tl.float32)
    read = tl.zeros((ROWS, WIDTH), tl.float32)
    for step in range(STEPS):
        column = (section * STEPS + step) * COLUMNS + tl.arange(0, COLUMNS)
        inside = column < keys
        where = (entry * keys + column)[:, None] * stride + head * WIDTH + channel[None, :]
        key = tl.load(k + where, mask=inside[:, None], other=0.0)
        score = tl.dot(query, tl.trans(key)) * scale
        seen = there[:, None] & inside[None, :]
        may = tl.load(allowed + (entry * queries + row)[:, None] * keys + column[None, :], mask=seen, other=0)
        may = ((may != 0) | anywhere[:, None]) & inside[None, :]
        score = tl.where(may, score, -float("inf"))
        above = tl.maximum(most, tl.max(score, 1))
        share = tl.exp2(score - above[:, None])
        fade = tl.exp2(most - above)
        total = total * fade + tl.sum(share, 1)
        value = tl.load(v + where, mask=inside[:, None], other=0.0)
        read = tl.dot(share.to(value.dtype), value, read * fade[:, None])
        most = above
    kept = ((entry * HEADS + head) * queries + row) * parts + section
    tl.store(most_out + kept, most, mask=there)
    tl.store(sum_out + kept, total, mask=there)
    tl.store(read_out + kept[:, None] * WIDTH + channel[None, :], read, mask=there[:, None])


@triton.jit
def _join(
    most_in, sum_in, read_in, out, queries, parts, HEADS: tl.constexpr, WIDTH: tl.constexpr, PARTS: tl.constexpr
):
    """What one query of one head has read in all parts."""
    query, head = tl.program_id(0), tl.program_id(1)
    entry = tl.program_id(2).to(tl.int64)
    part = tl.arange(0, PARTS)
    there = part < parts
    channel = tl.arange(0, WIDTH)
    kept = ((entry * HEADS + head) * queries + query) * parts + part
    most = tl.load(most_in + kept, mask=there, other=-float("inf"))
    share = tl.exp2(most - tl.max(most, 0))
    total = tl.sum(share * tl.load(sum_in + kept, mask=there, other=0.0), 0)
    read = tl.load(read_in + kept[:, None] * WIDTH + channel[None, :], mask=there[:, None], other=0.0)
    joined = tl.sum(share[:, None] * read, 0) / total
    at = ((entry * queries + query) * HEADS + head) * WIDTH + channel
    tl.store(out + at, joined.to(out.dtype.element_ty))


def attend_where(
    q_bqc: Tensor, k_blc: Tensor, v_blc: Tensor, heads: int, mask_logits_bqhw: Tensor, size: tuple[int, int]
) -> Tensor:
    """As `mask_decoder.attend` with `mask_decoder.attention_mask` for a level of that size; half precision.

    Few queries and many keys: the keys are divided among the card's processors (Flash-Decoding, arXiv 2311.01282).
    """
    batch, queries, channels = q_bqc.shape
    keys, width = k_blc.shape[1], channels // heads
    stride = mask_logits_bqhw.shape[-1] // size[1]
    allowed = torch.empty(batch, queries, keys, device=q_bqc.device, dtype=torch.int8)
    somewhere = torch.zeros(batch, queries, device=q_bqc.device, dtype=torch.int32)
    half = max(0, stride // 2 - 1)
    with _device_of(q_bqc):
        _allow[(triton.cdiv(keys, CELLS), batch * queries)](
            mask_logits_bqhw.contiguous(), allowed, somewhere, *size, keys, HALF=half, STRIDE=stride, BLOCK=CELLS
        )
    parts = min(PARTS, triton.cdiv(keys, PART))
    steps = triton.cdiv(triton.cdiv(keys, parts), KEYS)
    kept = (batch, heads, queries, parts)
    most, total = (torch.empty(kept, device=q_bqc.device) for _ in range(2))
    read = torch.empty(*kept, width, device=q_bqc.device)
    with _device_of(q_bqc):
        _attend[(parts, heads * triton.cdiv(queries, QUERIES), batch)](
            q_bqc.contiguous(),
            k_blc.contiguous(),
            v_blc.contiguous(),
            allowed,
            somewhere,
            most,
            total,
            read,
            queries,
            keys,
            width**-0.5 * LOG2_E.value,
            HEADS=heads,
            WIDTH=width,
            ROWS=QUERIES,
            COLUMNS=KEYS,
            STEPS=steps,
        )
    out = torch.empty(batch, queries, channels, device=q_bqc.device, dtype=q_bqc.dtype)
    with _device_of(q_bqc):
        _join[(queries, heads, batch)](most, total, read, out, queries, parts, HEADS=heads, WIDTH=width, PARTS=PARTS)
    return out

"""From logits to alpha on the logits' device: coverage, colour-guided edges, smoothing, grow, feather.

Read `alpha_from_logits` first. All functions are pure; only `Previous` travels from frame to frame.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import torch
from scipy import ndimage
from torch import Tensor
from torch.nn import functional

from x2roto.engine.postprocess.masks import boxes_of
from x2roto.matte import Refine

# Regularisation of the colour-guided filter, squared colour in [0, 1]: fainter edges are not followed.
GUIDE_EPSILON = 1e-4
# Temperature of the mask the colour-guided filter starts from: as crisp as anti-aliasing allows, since
# from a soft mask the filter would keep the blur.
CRISP = 0.02
# The band of a refined edge, in plate pixels: never wider, whatever the model's doubt.
MAX_BAND = 32
# The colour-guided filter works on a plate of which its radius is this many pixels.
WORKING = 3
# What colours say of an edge that was looked for far around, in logits: half of it where they are sure, beside what
# the network says. The temperature of both: there colours tell on which side a pixel is, and not how much of the
# pixel is covered. Found on procedural clips and the real ones (`docs/nano.md`).
COLOURS = 16.0
SIDES = 0.5
# What is added to logits of outlines that are off: of real things more is missed than is taken too much.
LEAN = 0.4
# Alpha above which pixels are parts of one thing where they touch.
SPECK = 0.02
# Mean picture change (of 1) at which the previous alpha starts to lose its say, and at which it has none.
STILL, MOVING = 3 / 255, 10 / 255
# Alpha change at which an edge counts as having moved.
EDGE_MOVED = 0.35


@dataclass(frozen=True, slots=True, eq=False)
class Previous:
    """What smoothing remembers of the last frame: `alpha` (n, height, width) and `rgb` (height, width, 3)."""

    alpha: Tensor
    rgb: Tensor


def alpha_from_logits(
    logits: Tensor, rgb: Tensor, options: Refine, previous: Previous | None = None, reach: float = 0.0
) -> tuple[Tensor, Previous]:
    """Alpha (n, height, width) float32 in [0, 1] of `logits` (n, h, w) that cover exactly the plate.

    `rgb`: the plate (height, width, 3), display-encoded float in [0, 1], on the logits' device. Give the
    second result back as `previous` on the next frame of the shot; None starts a shot. `reach`: how far the
    edge may be from where the logits have it, in longer sides of the object; 0: half a cell. The order:
    coverage, colour-guided edge, smoothing, grow, feather, invert.
    """
    height, width = rgb.shape[:2]
    fine = upsample(logits.float(), height, width)
    if options.edge == "hard":
        alpha = (fine > 0).float()
    elif reach and options.edge in ("auto", "refined"):
        alpha = sought(fine, rgb.float(), reach)
    elif options.edge == "refined":
        radii = band_radius(coverage(fine, options.temperature), cell=width / logits.shape[-1])
        alpha = guided(coverage(fine, CRISP), rgb.float(), radii)
    else:
        alpha = coverage(fine, options.temperature)
    if options.smooth and previous is not None:
        alpha = smooth(alpha, rgb, previous, options.smooth)
    remembered = Previous(alpha, rgb)
    alpha = feather(grow(alpha, options.grow), options.feather)
    return (1 - alpha if options.invert else alpha), remembered


def upsample(logits: Tensor, height: int, width: int) -> Tensor:
    """Logits at plate resolution, half-pixel centres; low-passed first where the plate is the smaller one."""
    resized = functional.interpolate(
        logits[None], (height, width), mode="bilinear", align_corners=False, antialias=True
    )
    return resized[0]


def coverage(logits: Tensor, temperature: float) -> Tensor:
    """Soft coverage of plate-size `logits` (n, height, width): a sigmoid no steeper than one pixel.

    The sigmoid of `logits / temperature` rises by slope / (4 · temperature) per pixel at the edge; where that
    would pass 1 the temperature is raised, so that a sure edge is anti-aliased instead of stepped.
    """
    down, across = torch.gradient(logits, dim=(-2, -1)) if min(logits.shape[-2:]) > 1 else (logits * 0,) * 2
    slope = torch.hypot(down, across)
    return torch.sigmoid(logits / torch.clamp(slope / 4, min=temperature))


def sought(logits: Tensor, rgb: Tensor, reach: float) -> Tensor:
    """Alpha of plate-size `logits` (n, height, width) whose edges are where the plate has some, within `reach` longer
    sides of each object; where the network is sure, colours must be surer."""
    alpha, logits = torch.zeros_like(logits), logits + LEAN
    for index, mask in enumerate(logits > 0):
        for spans in _around(mask):
            radius = max(math.ceil(reach * max(span.stop - span.start for span in spans)), 2)
            near = _wider(spans, 2 * radius, mask.shape)
            said = logits[index][near]
            outline = coverage(said[None], CRISP)[0]
            said = said + COLOURS * (_followed(outline, rgb[near], radius) - 0.5)
            alpha[index][near] = _attached(coverage(said[None], SIDES)[0], outline > 0.5)
    return alpha


def _attached(alpha: Tensor, drawn: Tensor) -> Tensor:
    """Alpha (height, width) without the parts of which nothing was `drawn`: what is near and of the same colours."""
    parts, count = ndimage.label((alpha > SPECK).cpu().numpy())
    if not count:
        return alpha
    kept = torch.zeros(count + 1, dtype=torch.bool, device=alpha.device)
    numbers = torch.from_numpy(parts).to(alpha.device)
    kept[numbers[drawn]] = True
    return alpha * kept[numbers]


def guided(alpha: Tensor, rgb: Tensor, radii: Sequence[int]) -> Tensor:
    """Alpha whose edge follows the plate's colours in a band of each object's radius, else unchanged."""
    refined = alpha.clone()
    for index, radius in enumerate(radii):
        for spans in _around(alpha[index] > 0.5):
            near = _wider(spans, 2 * radius, alpha.shape[1:])
            refined[index][near] = _followed(alpha[index][near], rgb[near], radius)
    return refined.clamp(0, 1)


def _followed(alpha: Tensor, rgb: Tensor, radius: int) -> Tensor:
    """Alpha (height, width) as the colours about its edge have it, within `radius`."""
    step = max(1, radius // WORKING)
    return torch.lerp(alpha, guided_filter(rgb, alpha, radius, step), edge_band(alpha, radius, step))


def band_radius(alpha: Tensor, cell: float) -> list[int]:
    """Half-width of each object's uncertain edge in whole pixels.

    The area where alpha is 0.12 to 0.88 over the contour's length: 2t for a sigmoid edge α = σ(x/t). At least
    half a logit `cell` (pixels), below which the model cannot see.
    """
    area = ((alpha > 0.12) & (alpha < 0.88)).sum((-2, -1))
    inside = alpha > 0.5
    down = (inside[:, 1:] ^ inside[:, :-1]).sum((-2, -1))
    across = (inside[..., 1:] ^ inside[..., :-1]).sum((-2, -1))
    # Cauchy-Crofton: lines in two directions cross a contour of length l about 4l/π times.
    length = (down + across) * (math.pi / 4)
    widths = (area / length.clamp(min=1)).tolist()
    return [min(max(math.ceil(max(width, cell) / 2), 2), MAX_BAND) for width in widths]


def edge_band(alpha: Tensor, radius: int, step: int = 1) -> Tensor:
    """Weight (height, width) in [0, 1]: 1 near the 0.5 contour of `alpha`, fading to 0 at `radius`; found on every
    `step`-th pixel."""
    height, width = alpha.shape
    reach = round(radius / step)
    inside = (_every(alpha[None, None], step) > 0.5).float()
    edge = _dilated(inside, 1) - inside
    fade = max(reach // 2, 1)
    band = (2 * _box(_dilated(edge, reach), fade) - 1).clamp(0, 1)
    return _resized(band, height, width)[0, 0]


def guided_filter(guide: Tensor, values: Tensor, radius: int, step: int = 1) -> Tensor:
    """`values` (height, width) as local linear functions of the colours of `guide` (height, width, 3), found on every
    `step`-th pixel.

    Source: He, Sun, Tang, "Guided Image Filtering", TPAMI 2013, equations 19 to 21 (colour guidance); He, Sun, "Fast
    Guided Filter", arXiv 1505.00996.
    """
    height, width = values.shape
    full, reach = guide.permute(2, 0, 1)[None], round(radius / step)
    colours, small = _every(full, step), _every(values[None, None], step)
    mean_guide = _box(colours, reach)
    mean_value = _box(small, reach)
    covariance = _box(colours * small, reach) - mean_guide * mean_value
    slope = _solve_symmetric(_covariances(colours, mean_guide, reach), covariance)
    offset = mean_value - (slope * mean_guide).sum(1, keepdim=True)
    linear = _resized(_box(torch.cat([slope, offset], dim=1), reach), height, width)
    return ((linear[:, :3] * full).sum(1, keepdim=True) + linear[:, 3:])[0, 0]


def _every(values: Tensor, step: int) -> Tensor:
    """Means (1, n, h, w) of squares of about `step` pixels."""
    if step == 1:
        return values
    return functional.interpolate(
        values, tuple(max(1, round(side / step)) for side in values.shape[-2:]), mode="area"
    )


def _resized(values: Tensor, height: int, width: int) -> Tensor:
    if values.shape[-2:] == (height, width):
        return values
    return functional.interpolate(values, (height, width), mode="bilinear", align_corners=False)


def grow(alpha: Tensor, pixels: float) -> Tensor:
    """Alpha (n, height, width) widened by `pixels` in every direction, narrowed if negative; subpixel.

    A dilation of the bilinear picture by a disc: its maximum lies on a pixel inside or on the circle.
    """
    if not pixels:
        return alpha
    if pixels < 0:
        return 1 - grow(1 - alpha, -pixels)
    grown = alpha
    for half_width, offset in _disc_rows(pixels):
        row = functional.max_pool2d(alpha, (1, 2 * half_width + 1), stride=1, padding=(0, half_width))
        grown = torch.maximum(grown, _shifted(row, offset, 0))
    for down, across in _circle(pixels):
        grown = torch.maximum(grown, _shifted(alpha, down, across))
    return grown


def feather(alpha: Tensor, pixels: float) -> Tensor:
    """Alpha (n, height, width) fading over `pixels` on both sides of the edge (Gaussian, sigma half)."""
    if not pixels:
        return alpha
    sigma = pixels / 2
    reach = math.ceil(3 * sigma)
    offsets = torch.arange(-reach, reach + 1, device=alpha.device, dtype=alpha.dtype)
    kernel = torch.exp(-0.5 * (offsets / sigma) ** 2)
    kernel /= kernel.sum()
    padded = functional.pad(alpha[:, None], (reach,) * 4, mode="replicate")
    across = functional.conv2d(padded, kernel[None, None, None, :])
    return functional.conv2d(across, kernel[None, None, :, None])[:, 0].clamp(0, 1)


def smooth(alpha: Tensor, rgb: Tensor, previous: Previous, strength: float) -> Tensor:
    """Alpha blended with the previous one, per pixel, where the picture is still and alpha barely changed.

    `strength` in [0, 1]: the share of the previous alpha on a still pixel. Where the picture or the edge
    moves the share falls to 0, so a fast edge is never smeared.
    """
    change = (rgb.float() - previous.rgb.float()).abs().mean(-1)
    # The mean keeps grain from counting as motion; the maximum lets motion reach its neighbours.
    motion = _dilated(_box(change[None, None], 2), 2)[0]
    still = ((MOVING - motion) / (MOVING - STILL)).clamp(0, 1)
    agreed = (1 - (alpha - previous.alpha).abs() / EDGE_MOVED).clamp(0, 1)
    return torch.lerp(alpha, previous.alpha, strength * still * agreed)


def _box(values: Tensor, radius: int) -> Tensor:
    """Mean over a square window of half-width `radius`, cut at the picture's border."""
    span, reach = 2 * radius + 1, radius
    rows = functional.avg_pool2d(values, (span, 1), 1, (reach, 0), count_include_pad=False)
    return functional.avg_pool2d(rows, (1, span), 1, (0, reach), count_include_pad=False)


def _dilated(values: Tensor, radius: int) -> Tensor:
    span = 2 * radius + 1
    rows = functional.max_pool2d(values, (span, 1), 1, (radius, 0))
    return functional.max_pool2d(rows, (1, span), 1, (0, radius))


def _around(mask: Tensor) -> Iterator[tuple[slice, slice]]:
    """The rectangle around `mask` (height, width); none for an empty one."""
    ((left, top, right, bottom),) = boxes_of(mask[None]).tolist()
    if right:
        yield slice(top, bottom), slice(left, right)


def _wider(spans: tuple[slice, slice], margin: int, shape: torch.Size) -> tuple[slice, ...]:
    """The same rectangle of a picture of that shape with a margin for what is beside it."""
    return tuple(
        slice(max(0, span.start - margin), min(size, span.stop + margin))
        for span, size in zip(spans, shape, strict=True)
    )


def _covariances(colours: Tensor, mean: Tensor, radius: int) -> dict[tuple[int, int], Tensor]:
    """Regularised covariance of the guide's channels, upper triangle, each (1, 1, height, width)."""
    pairs = [(i, j) for i in range(3) for j in range(i, 3)]
    return {
        (i, j): _box(colours[:, i : i + 1] * colours[:, j : j + 1], radius)
        - mean[:, i : i + 1] * mean[:, j : j + 1]
        + (GUIDE_EPSILON if i == j else 0)
        for i, j in pairs
    }


def _solve_symmetric(matrix: dict[tuple[int, int], Tensor], right: Tensor) -> Tensor:
    """Per-pixel solution (1, 3, height, width) of a 3×3 symmetric system, by cofactors."""
    a, b, c = matrix[0, 0], matrix[0, 1], matrix[0, 2]
    d, e, f = matrix[1, 1], matrix[1, 2], matrix[2, 2]
    x, y, z = right.split(1, dim=1)
    co_a, co_b, co_c = d * f - e * e, c * e - b * f, b * e - c * d
    co_d, co_e, co_f = a * f - c * c, b * c - a * e, a * d - b * b
    determinant = a * co_a + b * co_b + c * co_c
    rows = ((co_a, co_b, co_c), (co_b, co_d, co_e), (co_c, co_e, co_f))
    return torch.cat([p * x + q * y + r * z for p, q, r in rows], dim=1) / determinant


def _disc_rows(radius: float) -> Iterator[tuple[int, int]]:
    """The whole pixels within `radius`, as (half width, row offset) of each row."""
    for dy in range(-math.floor(radius), math.floor(radius) + 1):
        yield math.floor(math.sqrt(radius * radius - dy * dy)), dy


def _circle(radius: float) -> Iterator[tuple[float, float]]:
    """Points on the circle about a pixel apart, never fewer than eight."""
    count = max(8, 4 * math.ceil(radius * math.pi / 2)) if radius else 0
    for step in range(count):
        angle = 2 * math.pi * step / count
        yield radius * math.sin(angle), radius * math.cos(angle)


def _shifted(alpha: Tensor, dy: float, dx: float) -> Tensor:
    """`alpha` (n, height, width) sampled `dy`, `dx` away, bilinear; the border repeats."""
    height, width = alpha.shape[-2:]
    row, column = math.floor(dy), math.floor(dx)
    down, across = dy - row, dx - column
    reach = max(abs(row), abs(column)) + 1
    padded = functional.pad(alpha[:, None], (reach,) * 4, mode="replicate")[:, 0]

    def at(extra_row: int, extra_column: int) -> Tensor:
        top, left = reach + row + extra_row, reach + column + extra_column
        return padded[:, top : top + height, left : left + width]

    if not down and not across:
        return at(0, 0)
    upper = torch.lerp(at(0, 0), at(0, 1), across)
    return torch.lerp(upper, torch.lerp(at(1, 0), at(1, 1), across), down)

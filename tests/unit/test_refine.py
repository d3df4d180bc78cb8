"""From logits to alpha: figures whose right answer is known by construction."""

from __future__ import annotations

import pytest
import torch

from x2roto.matte import Refine
from x2roto.refine import (
    LEAN,
    Previous,
    alpha_from_logits,
    band_radius,
    coverage,
    edge_band,
    feather,
    grow,
    guided_filter,
    smooth,
    upsample,
)


def ramp(width: int, centre: float, height: int = 8) -> torch.Tensor:
    """Signed distance to a vertical edge at `centre`, in pixels, of pixel centres; positive to the right."""
    return (torch.arange(width) + 0.5 - centre).expand(1, height, width)


def disc(size: int, radius: float) -> torch.Tensor:
    """Anti-aliased disc in the middle."""
    at = torch.arange(size) + 0.5 - size / 2
    return (radius - torch.hypot(at[:, None], at[None]) + 0.5).clamp(0, 1)[None]


def area(alpha: torch.Tensor) -> float:
    return float(alpha.sum())


def test_upsampling_keeps_the_edge_where_it_is() -> None:
    # An edge at 5 cells is an edge at 20 pixels when cells are four pixels wide.
    fine = upsample(ramp(16, 5.0, height=4), 16, 64)
    crossing = torch.nonzero(fine[0, 8] > 0)[0].item()
    assert crossing == 20


@pytest.mark.parametrize("scale", [0.01, 1.0, 100.0])
def test_soft_coverage_is_never_steeper_than_a_pixel(scale: float) -> None:
    alpha = coverage(ramp(64, 20.3) * scale, 1.0)
    steps = alpha[0, 0].diff()
    assert steps.max() <= 1.0
    assert alpha[0, 0, 20] > 0.5 > alpha[0, 0, 19]


def test_a_sure_edge_is_antialiased() -> None:
    """The covered area follows the edge's subpixel place, which a threshold cannot do."""
    areas = [area(coverage(ramp(64, 20 + part / 10) * 50, 1.0)) / 8 for part in range(10)]
    for part, found in enumerate(areas):
        assert found == pytest.approx(44 - part / 10, abs=0.12)


def test_hard_edges_are_the_mask() -> None:
    logits = torch.randn(2, 8, 8, generator=torch.Generator().manual_seed(0))
    alpha, _ = alpha_from_logits(logits, torch.zeros(32, 32, 3), Refine(edge="hard"))
    assert torch.equal(alpha, (upsample(logits, 32, 32) > 0).float())


@pytest.mark.parametrize("pixels", [0.5, 1.0, 2.25, 5.5])
def test_grow_moves_the_edge_by_that_much_in_every_direction(pixels: float) -> None:
    grown = grow(disc(80, 20), pixels)
    assert area(grown) == pytest.approx(torch.pi * (20 + pixels) ** 2, rel=0.01)
    shrunk = grow(disc(80, 20), -pixels)
    assert area(shrunk) == pytest.approx(torch.pi * (20 - pixels) ** 2, rel=0.015)


def test_grow_by_nothing_changes_nothing() -> None:
    alpha = torch.rand(2, 9, 11, generator=torch.Generator().manual_seed(1))
    assert torch.equal(grow(alpha, 0), alpha)


def test_feather_keeps_the_area_and_fades_as_far_as_asked() -> None:
    edge = (ramp(64, 32) > 0).float()
    soft = feather(edge, 6)[0, 4]
    assert float(soft.sum()) == pytest.approx(32, abs=1e-3)
    assert soft[26] == pytest.approx(0.03, abs=0.02)
    assert soft[38] == pytest.approx(0.97, abs=0.02)


def test_band_follows_the_models_own_doubt() -> None:
    sure, unsure = ramp(128, 64, 64) / 1.0, ramp(128, 64, 64) / 6.0
    radii = band_radius(coverage(torch.cat([sure, unsure]), 1.0), cell=2)
    assert radii[0] < 4
    assert 12 <= radii[1] <= 18


def test_guided_filter_returns_a_linear_function_of_the_guide() -> None:
    guide = torch.rand(24, 24, 3, generator=torch.Generator().manual_seed(2))
    values = 0.2 + guide @ torch.tensor([0.3, 0.1, 0.2])
    assert torch.allclose(guided_filter(guide, values, 4), values, atol=5e-3)


def test_refined_edges_follow_the_picture() -> None:
    """A mask of eight-pixel cells gets the sharp edge that the picture has."""
    truth = disc(128, 40)
    rgb = truth[0, ..., None] * torch.tensor([0.9, 0.4, 0.1]) + (1 - truth[0, ..., None]) * torch.tensor(
        [0.1, 0.3, 0.8]
    )
    coarse = torch.nn.functional.interpolate(disc(128, 40)[None], (16, 16), mode="area")[0]
    logits = torch.logit(coarse.clamp(1e-3, 1 - 1e-3))
    errors = {}
    for edge in ("soft", "refined"):
        alpha, _ = alpha_from_logits(logits, rgb, Refine(edge=edge))
        assert alpha.min() >= 0
        assert alpha.max() <= 1
        errors[edge] = float((alpha - truth).abs().mean())
    assert errors["refined"] < errors["soft"] / 2


@pytest.mark.parametrize("reach", [0.0, 0.1])
def test_an_empty_matte_stays_empty(reach: float) -> None:
    options = Refine(edge="refined", grow=2, feather=3)
    alpha, _ = alpha_from_logits(torch.full((1, 4, 4), -30.0), torch.rand(32, 32, 3), options, reach=reach)
    assert alpha.max() < 1e-6


# ---- outlines that are off ----------------------------------------------------------------------------------


def plate(truth: torch.Tensor, grain: float = 0.02) -> torch.Tensor:
    """The colours of a thing on a background, with grain."""
    thing, behind = torch.tensor([0.9, 0.4, 0.1]), torch.tensor([0.1, 0.3, 0.8])
    noise = grain * torch.randn(*truth.shape[-2:], 3, generator=torch.Generator().manual_seed(5))
    return (truth[0, ..., None] * thing + (1 - truth[0, ..., None]) * behind + noise).clamp(0, 1)


def test_an_edge_that_is_off_is_found_where_the_plate_has_it() -> None:
    """Outlines six pixels too far out and four too far in, and unsure over twenty pixels."""
    truth = disc(160, 50)
    at = torch.arange(160) + 0.5 - 80
    for radius in (56.0, 46.0):
        logits = ((radius - torch.hypot(at[:, None], at[None])) / 8)[None]
        found = {
            name: alpha_from_logits(logits - lean, plate(truth), Refine(edge=edge), reach=reach)[0]
            for name, edge, reach, lean in (
                ("soft", "soft", 0.1, 0.0),
                ("near", "refined", 0.0, 0.0),
                ("far", "refined", 0.1, LEAN),
            )
        }
        errors = {name: float((alpha - truth).abs().sum()) / area(truth) for name, alpha in found.items()}
        assert errors["far"] < 0.06
        assert errors["far"] < errors["near"] / 3 < errors["soft"] / 3
        # Solid inside, nothing outside, and hardly a pixel that is neither.
        far = found["far"]
        assert far.min() >= 0
        assert far.max() <= 1
        assert float(((far > 0.05) & (far < 0.95)).sum()) < 0.15 * area(truth)


def test_colours_decide_where_the_network_is_not_sure() -> None:
    """A bite of the background's colours at the edge of a disc that was drawn whole."""
    at = torch.arange(160) + 0.5
    distance = torch.hypot(at[:, None] - 80, at[None] - 80)
    bite = torch.hypot(at[:, None] - 80, at[None] - 128) < 4
    truth = disc(160, 50)
    shown = plate(truth * ~bite)
    sure, unsure = (
        alpha_from_logits(sureness * (50 - distance)[None] - LEAN, shown, Refine(), reach=0.1)[0]
        for sureness in (3.0, 0.05)
    )
    inside = bite & (distance < 48)
    assert sure[0][inside].mean() > 0.95
    assert unsure[0][inside].mean() < 0.1


def test_what_is_near_and_of_the_same_colours_is_not_the_object() -> None:
    """A ball of the disc's colours beside it, of which nothing was drawn."""
    at = torch.arange(160) + 0.5
    ball = (5 - torch.hypot(at[:, None] - 80, at[None] - 138) + 0.5).clamp(0, 1)[None]
    truth = disc(160, 50)
    logits = 4 * (disc(160, 52) - 0.5)
    alpha, _ = alpha_from_logits(logits, plate(torch.maximum(truth, ball)), Refine(), reach=0.1)
    assert alpha[ball > 0].max() < 0.05
    assert area(alpha) == pytest.approx(area(truth), rel=0.03)


def test_auto_is_refined_where_outlines_are_off_and_soft_where_they_are_not() -> None:
    truth, logits = disc(96, 30), 4 * (disc(96, 33) - 0.5)

    def alpha(edge: str, reach: float) -> torch.Tensor:
        return alpha_from_logits(logits, plate(truth), Refine(edge=edge), reach=reach)[0]  # type: ignore[arg-type]

    assert torch.equal(alpha("auto", 0.08), alpha("refined", 0.08))
    assert torch.equal(alpha("auto", 0.0), alpha("soft", 0.0))
    assert torch.equal(alpha("soft", 0.08), alpha("soft", 0.0))
    assert not torch.equal(alpha("auto", 0.08), alpha("auto", 0.0))


def test_how_far_is_looked_follows_the_objects_size() -> None:
    """Unsure outlines six pixels off: of what is large that is mended, of what is small not, each by itself."""
    at = torch.arange(200) + 0.5
    large, small = (torch.hypot(at[:, None] - y, at[None] - x) for y, x in ((90, 70), (170, 170)))
    truth = torch.maximum((48 - large + 0.5).clamp(0, 1), (10 - small + 0.5).clamp(0, 1))[None]
    logits = torch.stack([54 - large, 16 - small]) / 8 - LEAN
    alpha, _ = alpha_from_logits(logits, plate(truth), Refine(), reach=0.1)
    assert area(alpha[0]) == pytest.approx(torch.pi * 48**2, rel=0.06)
    assert area(alpha[1]) > 1.5 * torch.pi * 10**2
    apart = [alpha_from_logits(one[None], plate(truth), Refine(), reach=0.1)[0][0] for one in logits]
    assert torch.equal(alpha, torch.stack(apart))


@pytest.mark.parametrize("step", [1, 2, 3, 5])
def test_a_filter_that_works_on_fewer_pixels_finds_the_same_function(step: int) -> None:
    guide = torch.nn.functional.interpolate(
        torch.rand(1, 3, 6, 6, generator=torch.Generator().manual_seed(2)), (60, 63), mode="bicubic"
    )[0].permute(1, 2, 0)
    values = 0.2 + guide @ torch.tensor([0.3, 0.1, 0.2])
    assert torch.allclose(guided_filter(guide, values, 15, step), values, atol=2e-2)


@pytest.mark.parametrize("step", [1, 3])
def test_the_band_lies_about_the_edge_and_fades(step: int) -> None:
    band = edge_band((ramp(96, 48, 96)[0] > 0).float(), 12, step)
    assert band.shape == (96, 96)
    assert band[48, 44:52].min() == 1
    assert band[48, :30].max() == band[48, 66:].max() == 0


def test_smoothing_removes_flicker_on_a_still_picture() -> None:
    rgb = torch.rand(32, 32, 3, generator=torch.Generator().manual_seed(3))
    before, now = torch.full((1, 32, 32), 0.5), torch.full((1, 32, 32), 0.52)
    blended = smooth(now, rgb, Previous(before, rgb), 1.0)
    assert torch.all((blended - 0.5).abs() < 0.005)


def test_smoothing_never_smears_what_moves() -> None:
    rgb = torch.zeros(32, 64, 3)
    moved_rgb = rgb.clone()
    moved_rgb[:, 20:30] = 1
    before, now = (ramp(64, 20, 32) > 0).float(), (ramp(64, 30, 32) > 0).float()
    # The picture moved where the edge did; and an edge that jumped counts even where the picture did not change.
    assert torch.equal(smooth(now, moved_rgb, Previous(before, rgb), 1.0), now)
    assert torch.equal(smooth(now, rgb, Previous(before, rgb), 1.0), now)


def test_invert_is_the_hold_out_and_state_is_kept_before_it() -> None:
    logits, rgb = ramp(16, 8), torch.zeros(8, 16, 3)
    plain, kept = alpha_from_logits(logits, rgb, Refine())
    inverted, _ = alpha_from_logits(logits, rgb, Refine(invert=True))
    assert torch.allclose(inverted, 1 - plain)
    assert torch.equal(kept.alpha, plain)


def test_same_on_another_device() -> None:
    if not torch.cuda.is_available():
        pytest.skip("needs a CUDA device")
    generator = torch.Generator().manual_seed(4)
    logits, rgb = torch.randn(2, 16, 16, generator=generator), torch.rand(64, 64, 3, generator=generator)
    options = Refine(edge="refined", grow=1.5, feather=2)
    here, _ = alpha_from_logits(logits, rgb, options)
    there, _ = alpha_from_logits(logits.cuda(), rgb.cuda(), options)
    assert torch.allclose(here, there.cpu(), atol=1e-4)

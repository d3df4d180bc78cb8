"""A scene as pictures and exact mattes, computed in torch on any device.

Actors are warped inside windows that follow them, all frames and shutter moments of one in one batch; light adds up
in linear (squared) values, so motion blur and defocus of bright things look right. Alpha is the mean coverage over
the open shutter, after defocus, so it is the true soft matte of what is seen.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor

from x2roto.train.footage.codec import compressed
from x2roto.train.footage.scene import Actor, Scene

_FAR = 3.0  # eye distance of the perspective of turning things, in half heights
_MOST_MOMENTS = 16
_MOMENT_TRAVEL = 2.0  # pixels between two moments of an open shutter
_LUMA = (0.3, 0.59, 0.11)


@dataclass(frozen=True, slots=True, eq=False)
class Rendered:
    """Pictures and mattes of n actors in T frames.

    `frames`: uint8 (T, H, W, 3), display-encoded; None where only mattes were asked for. `alpha`: float32
    (n, T, H, W), the share of each pixel in which the actor is seen. `whole`: the same without what covers it.
    """

    frames: NDArray[np.uint8] | None
    alpha: NDArray[np.float32]
    whole: NDArray[np.float32]

    @property
    def masks(self) -> NDArray[np.bool_]:
        """Where each actor makes up more than half of the pixel, (n, T, H, W)."""
        return self.alpha > 0.5


def render(scene: Scene, height: int, width: int, device: str | torch.device = "cpu") -> Rendered:
    """Films `scene`. Bytes depend on the seed and, in the last bit, on the device."""
    film = _Filming(scene, height, width, torch.device(device))
    canvas = film.backdrop()
    surround = canvas.mean((0, 2, 3))
    alpha, whole = film.mattes()
    for number in film.far_to_near():
        layer = film.layer(scene.actors[number])
        if layer is None:
            continue
        film.shade(canvas, scene.actors[number])
        film.lay(canvas, layer, film.relit(layer, surround))
        _record(alpha, whole, number, layer)
    return Rendered(_developed(film, canvas), alpha.cpu().numpy(), whole.cpu().numpy())


def render_mattes(scene: Scene, height: int, width: int) -> Rendered:
    """Only where everything is: the mattes of `render`, without pictures."""
    film = _Filming(scene, height, width, torch.device("cpu"))
    alpha, whole = film.mattes()
    for number in film.far_to_near():
        layer = film.layer(scene.actors[number])
        if layer is not None:
            _record(alpha, whole, number, layer)
    return Rendered(None, alpha.numpy(), whole.numpy())


def render_place(
    scene: Scene, layers: NDArray[np.uint8], height: int, width: int, device: str | torch.device = "cpu"
) -> tuple[NDArray[np.uint8], NDArray[np.float32]]:
    """A scene without actors, and where `layers` (F, h, w, n; one for each backdrop picture) end up.

    Returns frames uint8 (T, H, W, 3) and shares float32 (n, T, H, W).
    """
    film = _Filming(scene, height, width, torch.device(device))
    seen = film.place(np.concatenate([scene.backdrop.load(), layers], -1))
    frames = _developed(film, seen[:, :3].square())
    return frames, np.asarray(seen[:, 3:].transpose(0, 1).cpu().numpy())


@dataclass(frozen=True, slots=True, eq=False)
class _Layer:
    """An actor inside its windows: `rgba` (T, 4, h, w) premultiplied linear; `top`, `left` of each frame's window."""

    rgba: Tensor
    top: list[int]
    left: list[int]

    def window(self, frame: int) -> tuple[slice, slice]:
        high, wide = self.rgba.shape[-2:]
        return slice(self.top[frame], self.top[frame] + high), slice(self.left[frame], self.left[frame] + wide)


def _record(alpha: Tensor, whole: Tensor, number: int, layer: _Layer) -> None:
    """The layer's mattes; what was laid before loses what is now covered."""
    for frame in range(alpha.shape[1]):
        rows, columns = layer.window(frame)
        cover = layer.rgba[frame, 3]
        alpha[:, frame, rows, columns] *= 1 - cover
        alpha[number, frame, rows, columns] = cover
        whole[number, frame, rows, columns] = cover


class _Filming:
    """One scene at one size on one device."""

    def __init__(self, scene: Scene, height: int, width: int, device: torch.device) -> None:
        self.scene, self.height, self.width, self.device = scene, height, width, device
        y = (torch.arange(height, device=device) + 0.5 - height / 2) / height
        x = (torch.arange(width, device=device) + 0.5 - width / 2) / height
        self.x, self.y = x, y

    def tensor(self, values: NDArray[Any] | list[float]) -> Tensor:
        return torch.as_tensor(np.asarray(values, np.float32), device=self.device)

    def mattes(self) -> tuple[Tensor, Tensor]:
        shape = len(self.scene.actors), self.scene.frames, self.height, self.width
        return torch.zeros(shape, device=self.device), torch.zeros(shape, device=self.device)

    def far_to_near(self) -> list[int]:
        return sorted(
            range(len(self.scene.actors)), key=lambda number: -float(self.scene.actors[number].depth.mean())
        )

    # ---- backdrop

    def backdrop(self) -> Tensor:
        """The place in linear light, (T, 3, H, W)."""
        film = self.scene.film
        return _blurred(
            self._seen(self.scene.backdrop.load(), linear=True), (film.blur + film.defocus * 0.6) / 1000 * self.height
        )

    def place(self, pictures: NDArray[np.uint8]) -> Tensor:
        """Pictures of the place (F, h, w, C) as the camera sees them, encoded values, (T, C, H, W)."""
        return self._seen(pictures, linear=False)

    def _seen(self, pictures: NDArray[np.uint8], *, linear: bool) -> Tensor:
        scene = self.scene
        if scene.backdrop.kind == "footage":
            order = (scene.first_picture + scene.step * np.arange(scene.frames)) % (2 * len(pictures) - 2)
            pictures = pictures[np.where(order < len(pictures), order, 2 * len(pictures) - 2 - order)]
        plate = torch.tensor(pictures, device=self.device).permute(0, 3, 1, 2).float().div_(255)
        moments = self._moments(self._camera_travel())
        grid = (self._panorama_grid if scene.backdrop.kind == "panorama" else self._flat_grid)(moments, plate)
        source = plate.repeat_interleave(moments, 0) if len(plate) > 1 else plate.expand(len(grid), -1, -1, -1)
        mode = "border" if scene.backdrop.kind == "panorama" else "reflection"
        seen = F.grid_sample(source, grid, padding_mode=mode, align_corners=False)
        light: Tensor = (seen.square_() if linear else seen).unflatten(0, (scene.frames, moments)).mean(1)
        return light

    def _camera_travel(self) -> float:
        camera = self.scene.camera
        paths = np.stack([camera.x, camera.y, camera.zoom * 0.7, camera.roll * 0.7], 1).reshape(-1, 2, 4)
        return float(np.abs(paths[:, 1] - paths[:, 0]).max()) * self.height

    def _moments(self, travel: float) -> int:
        return int(np.clip(np.ceil(travel / _MOMENT_TRAVEL), 1, _MOST_MOMENTS))

    def _between(self, track: NDArray[np.float32], moments: int) -> Tensor:
        """A track's values at `moments` even moments of each open shutter, (T * moments,)."""
        opened, closed = self.tensor(track).view(-1, 2, 1).unbind(1)
        share = (torch.arange(moments, device=self.device) + 0.5) / moments
        return (opened + (closed - opened) * share).flatten()

    def _looking(self, moments: int) -> tuple[Tensor, Tensor]:
        """Where each pixel looks before the camera pans, x and y (T * moments, H, W)."""
        camera = self.scene.camera
        zoom, roll = (self._between(track, moments).view(-1, 1, 1) for track in (camera.zoom, camera.roll))
        x, y = self.x.view(1, 1, -1), self.y.view(1, -1, 1)
        cosine, sine = torch.cos(roll) / zoom, torch.sin(roll) / zoom
        return cosine * x + sine * y, cosine * y - sine * x

    def _flat_grid(self, moments: int, plate: Tensor) -> Tensor:
        """A flat picture with some relief: the lower a point lies, and the more a bump stands out, the nearer."""
        scene = self.scene
        x, y = self._looking(moments)
        high, wide = plate.shape[-2:]
        fit = min(1.0, wide / high / scene.aspect) * scene.window[2]
        relief = 0.35 + scene.relief * (y + 0.12 * torch.sin(5 * x + 1.3) * torch.cos(4 * y + 0.7))
        x = (x + relief * self._between(scene.camera.x, moments).view(-1, 1, 1)) * fit
        y = (y + relief * self._between(scene.camera.y, moments).view(-1, 1, 1)) * fit
        spare_x, spare_y = wide / high - fit * scene.aspect, 1 - fit
        u = (x + (scene.window[0] - 0.5) * spare_x) * 2 * high / wide
        return torch.stack([u, (y + (scene.window[1] - 0.5) * spare_y) * 2], -1)

    def _panorama_grid(self, moments: int, plate: Tensor) -> Tensor:
        """A look around in an equirectangular picture; a pan turns the head."""
        scene = self.scene
        x, y = self._looking(moments)
        lens = 0.5 + 0.6 * scene.window[2]
        yaw = self._between(scene.camera.x, moments).view(-1, 1, 1) * 0.5 + scene.window[0] * 2 * np.pi
        pitch = 0.15 * (scene.window[1] - 0.5)
        x, y = x * lens, y * lens + pitch + self._between(scene.camera.y, moments).view(-1, 1, 1) * 0.5
        turned = torch.atan(x) + yaw
        u = torch.remainder(turned / np.pi, 2) - 1
        return torch.stack([u * (1 - 1 / plate.shape[-1]), torch.atan(y / torch.sqrt(1 + x * x)) * 2 / np.pi], -1)

    # ---- actors

    def layer(self, actor: Actor) -> _Layer | None:
        """The actor as filmed, before relighting; None when it is never in the picture."""
        pose = self._pose(actor)
        top, left, high, wide = self._windows(actor, pose)
        if not high:
            return None
        moments = self._moments(self._travel(pose))
        u, v = self._surface(actor, moments, top, left, high, wide)
        texture = self._texture(actor, float(pose[2].max()) * self.height)
        source = texture[self._pictures(actor)].repeat_interleave(moments, 0) if len(texture) > 1 else texture
        seen = F.grid_sample(source.expand(len(u), -1, -1, -1), torch.stack([u, v], -1), align_corners=False)
        seen = seen.unflatten(0, (self.scene.frames, moments)).mean(1)
        return _Layer(_blurred(seen, self._softness(actor)).clamp_(0, 1), top, left)

    def _pictures(self, actor: Actor) -> Tensor:
        return torch.as_tensor(actor.cycle, device=self.device)

    def _pose(self, actor: Actor) -> NDArray[np.float32]:
        """Middle x, y, height and angle on screen, (4, 2T)."""
        camera = self.scene.camera
        x, y = actor.x - camera.x / actor.depth, actor.y - camera.y / actor.depth
        cosine, sine = np.cos(camera.roll), np.sin(camera.roll)
        angle = actor.angle + camera.roll
        return np.stack(
            [
                camera.zoom * (cosine * x - sine * y),
                camera.zoom * (sine * x + cosine * y),
                actor.height * camera.zoom,
                angle,
            ]
        ).astype(np.float32)

    def _travel(self, pose: NDArray[np.float32]) -> float:
        """The longest way any part goes while a shutter is open, in pixels."""
        step = np.abs(pose.reshape(4, -1, 2)[..., 1] - pose.reshape(4, -1, 2)[..., 0])
        reach = pose[2].max() * 0.6
        return float((np.hypot(step[0], step[1]) + step[2] * 0.6 + step[3] * reach).max()) * self.height

    def _windows(self, actor: Actor, pose: NDArray[np.float32]) -> tuple[list[int], list[int], int, int]:
        """Top and left of a window around the actor in each frame, all of one size; size 0 when it is never seen."""
        shape = actor.sprite.pictures.shape[2] / actor.sprite.pictures.shape[1]
        cosine, sine = np.abs(np.cos(pose[3])), np.abs(np.sin(pose[3]))
        margin = 1.1 + 3 * actor.bend + 0.3 * np.abs(np.sin(actor.yaw)) * shape
        rim = 2 + 3 * self._softness(actor)
        half_x = pose[2] / 2 * (cosine * shape + sine) * margin * self.height + rim
        half_y = pose[2] / 2 * (sine * shape + cosine) * margin * self.height + rim
        x, y = pose[0] * self.height + self.width / 2, pose[1] * self.height + self.height / 2
        left, wide = _spans(x - half_x, x + half_x, self.width)
        top, high = _spans(y - half_y, y + half_y, self.height)
        return (top, left, high, wide) if wide and high else ([], [], 0, 0)

    def _softness(self, actor: Actor) -> float:
        film = self.scene.film
        distance = min(1.0, abs(float(np.log(actor.depth.mean() / 1.4))) * 1.6)
        return (film.blur + film.defocus * distance) * self.height / 1000

    def _surface(
        self, actor: Actor, moments: int, top: list[int], left: list[int], high: int, wide: int
    ) -> tuple[Tensor, Tensor]:
        """Where on the sprite each window pixel lies, -1..1, (T * moments, high, wide)."""
        x, y, height, angle = (self._between(track, moments).view(-1, 1, 1) for track in self._pose(actor))
        yaw = self._between(actor.yaw, moments).view(-1, 1, 1)
        shape = actor.sprite.pictures.shape[2] / actor.sprite.pictures.shape[1]
        columns = self._starts(left, moments) + torch.arange(wide, device=self.device).view(1, 1, -1)
        rows = self._starts(top, moments) + torch.arange(high, device=self.device).view(1, -1, 1)
        dx = ((columns + 0.5 - self.width / 2) / self.height - x) * (2 / height)
        dy = ((rows + 0.5 - self.height / 2) / self.height - y) * (2 / height)
        cosine, sine = torch.cos(angle), torch.sin(angle)
        across, down = cosine * dx + sine * dy, cosine * dy - sine * dx
        flat = across * _FAR / (_FAR * torch.cos(yaw) - across * torch.sin(yaw)).clamp_min(0.1)
        down = down * (1 + flat * torch.sin(yaw) / _FAR)
        u, v = flat / shape, down
        u, v = self._bent(actor, moments, u, v)
        return (-u if actor.mirrored else u), v

    def _starts(self, starts: list[int], moments: int) -> Tensor:
        return torch.tensor(starts, device=self.device).repeat_interleave(moments).view(-1, 1, 1)

    def _bent(self, actor: Actor, moments: int, u: Tensor, v: Tensor) -> tuple[Tensor, Tensor]:
        """Waves that run slowly over the surface, each with its own direction and pace."""
        if actor.bend < 1e-3:
            return u, v
        rng = np.random.default_rng(actor.seed)
        phase, pace = rng.uniform(0, 2 * np.pi, 3), rng.uniform(0.3, 1.1, 3)
        time = torch.arange(self.scene.frames, device=self.device).repeat_interleave(moments).view(-1, 1, 1)
        a, b, c = (float(phase[k]) + float(pace[k]) * time for k in range(3))
        amount = 2 * actor.bend
        return (
            u + amount * (torch.sin(2.1 * v + a) + 0.5 * torch.sin(3.6 * v + 2.0 * u + b)),
            v + amount * 0.6 * torch.sin(2.4 * u + c),
        )

    def _texture(self, actor: Actor, pixels: float) -> Tensor:
        """The sprite premultiplied in linear light, not much larger than it will be seen."""
        raw = torch.tensor(actor.sprite.pictures, device=self.device).permute(0, 3, 1, 2).float().div_(255)
        alpha = raw[:, 3:]
        texture = torch.cat([raw[:, :3].square() * alpha, alpha], 1)
        high, wide = texture.shape[-2:]
        shrink = max(pixels, 4.0) * 1.25 / high
        if shrink >= 0.9:
            return F.pad(texture, (1, 1, 1, 1))
        size = max(2, round(high * shrink)), max(2, round(wide * shrink))
        return F.pad(F.interpolate(texture, size, mode="bilinear", antialias=True), (1, 1, 1, 1))

    # ---- light

    def relit(self, layer: _Layer, surround: Tensor) -> Tensor:
        """The layer's colour (T, 3, h, w) in the backdrop's light: brightness and tint partly matched."""
        light = self.scene.light
        rgb, alpha = layer.rgba[:, :3], layer.rgba[:, 3:]
        luma = self.tensor(list(_LUMA))
        mean = rgb.sum((0, 2, 3)) / alpha.sum().clamp_min(1)
        own, around = (mean @ luma).clamp_min(0.02), (surround @ luma).clamp_min(0.02)
        gain = (around / own).pow(0.6 * light.match).clamp(0.45, 1.6)
        tint = (surround / around).clamp(0.6, 1.6).pow(0.5 * light.match)
        slope = (
            1
            + light.slope[0] * self._ramp(layer.rgba.shape[-1])
            + light.slope[1] * self._ramp(layer.rgba.shape[-2])[:, None]
        )
        haze = 0.04 * light.match
        return rgb * (gain * tint * (1 - haze)).view(1, 3, 1, 1) * slope + haze * surround.view(1, 3, 1, 1) * alpha

    def _ramp(self, length: int) -> Tensor:
        return torch.linspace(-1, 1, length, device=self.device)

    def lay(self, canvas: Tensor, layer: _Layer, rgb: Tensor) -> None:
        """`rgb` over the canvas where the layer is."""
        for frame in range(len(canvas)):
            rows, columns = layer.window(frame)
            part = canvas[frame, :, rows, columns]
            part.mul_(1 - layer.rgba[frame, 3]).add_(rgb[frame])

    def shade(self, canvas: Tensor, actor: Actor) -> None:
        """The shadow on the ground at the actor's feet: its outline laid flat, and a dark spot where it stands."""
        light = self.scene.light
        if not actor.stands:
            return
        pose = self._pose(actor)[:, ::2]
        shape = actor.sprite.pictures.shape[2] / actor.sprite.pictures.shape[1]
        outline = self.tensor(actor.sprite.pictures[actor.cycle[0], ..., 3] / np.float32(255))[None, None]
        outline = F.interpolate(outline, (24, 24), mode="bilinear", antialias=True)
        outline = F.avg_pool2d(F.pad(outline, (3, 3, 3, 3)), 5, 1, 2)
        for frame in range(len(canvas)):
            x, y, height = (float(value) for value in pose[:3, frame])
            self._cast_shadow(canvas[frame], outline, x, y + height / 2, height, shape, light.shadow_x, light.shadow)

    def _cast_shadow(
        self,
        frame: Tensor,
        outline: Tensor,
        x: float,
        feet: float,
        height: float,
        shape: float,
        lean: float,
        dark: float,
    ) -> None:
        reach = (shape / 2 + abs(lean) + 0.1) * height
        rows = _span(feet - 0.3 * height, feet + 0.12 * height, self.height)
        columns = _span(x - reach, x + reach, self.height, self.width)
        if rows.start >= rows.stop or columns.start >= columns.stop:
            return
        up = (feet - self.y[rows, None]) / (0.25 * height)
        side = (self.x[None, columns] - x) / (shape * height / 2)
        u = (side - lean * 2 * up / shape).expand(up.shape[0], -1)
        grid = torch.stack([u * 0.8, ((1 - 2 * up) * 0.8).expand_as(u)], -1)
        cast = F.grid_sample(outline, grid[None], align_corners=False)[0, 0] * (1 - 0.5 * up.clamp(0, 1))
        contact = torch.exp(-2.5 * (side.square() + (up * 2.2).square()))
        frame[:, rows, columns] *= 1 - dark * torch.maximum(cast * 0.8, contact)


def _span(start: float, stop: float, unit: int, length: int | None = None) -> slice:
    """Pixels between two centred coordinates in frame heights; `length` of the axis, by default `unit`."""
    length = length or unit
    return slice(max(0, round(start * unit + length / 2)), max(0, min(length, round(stop * unit + length / 2))))


def _spans(low: NDArray[np.float32], high: NDArray[np.float32], length: int) -> tuple[list[int], int]:
    """Starts and the common size of windows that hold both shutter moments' spans inside 0..length."""
    start = np.floor(low.reshape(-1, 2).min(1)).astype(int)
    stop = np.ceil(high.reshape(-1, 2).max(1)).astype(int)
    seen = np.minimum(stop, length) - np.maximum(start, 0)
    size = int(min(length, max(0, seen.max())))
    return [int(np.clip(first, 0, length - size)) for first in start], size


def _blurred(pictures: Tensor, sigma: float) -> Tensor:
    """Gaussian blur of (N, C, H, W); what lies outside is like the edge."""
    if sigma < 0.25:
        return pictures
    radius = max(1, round(2.5 * sigma))
    weights = np.exp(-(np.arange(radius + 1) ** 2) / (2 * sigma * sigma))
    weights /= weights[0] + 2 * weights[1:].sum()
    for axis, pad in ((-1, (radius, radius, 0, 0)), (-2, (0, 0, radius, radius))):
        # Shifted sums: one-channel convolutions are several times slower on a CPU.
        padded, length = F.pad(pictures, pad, mode="replicate"), pictures.shape[axis]
        pictures = padded.narrow(axis, radius, length) * float(weights[0])
        for offset in range(1, radius + 1):
            for start in (radius - offset, radius + offset):
                pictures.add_(padded.narrow(axis, start, length), alpha=float(weights[offset]))
    return pictures


# ---- development ------------------------------------------------------------------------------------------


def _developed(film: _Filming, canvas: Tensor) -> NDArray[np.uint8]:
    """Light to display bytes: exposure, curve, vignette, sensor noise, compression."""
    scene, look = film.scene, film.scene.film
    gain = film.tensor(scene.light.gain[::2]).view(-1, 1, 1, 1) * film.tensor(scene.light.tint).view(1, 3, 1, 1)
    seen = (canvas * gain).clamp_(0, 1.4).sqrt_()
    grey = (seen * film.tensor(list(_LUMA)).view(1, 3, 1, 1)).sum(1, keepdim=True)
    seen = grey + (seen - grey) * look.saturation
    seen = 0.45 + (seen - 0.45) * look.contrast
    if look.vignette:
        seen = seen * (1 - look.vignette * (film.x.square()[None, :] + film.y.square()[:, None]))
    seen = (seen + _noise(film, seen)).clamp_(0, 1)
    if look.quality < 100:
        seen = compressed(seen, look.quality)
    return np.asarray(seen.mul(255).add_(0.5).to(torch.uint8).permute(0, 2, 3, 1).contiguous().cpu().numpy())


def _noise(film: _Filming, seen: Tensor) -> Tensor:
    """Shot noise: stronger in the light, a little in the dark, correlated over neighbours as after demosaicing."""
    look = film.scene.film
    random = torch.Generator(film.device).manual_seed(
        int(np.random.SeedSequence(film.scene.seed).generate_state(1)[0])
    )
    noise = torch.randn(seen.shape, generator=random, device=film.device)
    noise += look.grain * (noise.roll(1, -1) + noise.roll(1, -2))
    return noise * look.noise * (0.5 + seen.clamp(0, 1))

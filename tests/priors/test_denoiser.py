"""Denoisers as priors: tiles, planes, symmetries, the crop to the foreground, and what volumes they take."""

import itertools
import math

import numpy as np
import pytest
import torch
from scipy import ndimage
from torch.nn.functional import avg_pool2d, avg_pool3d, pad

from invsr.errors import InvsrError
from invsr.models.engines import multiplies_bfloat16
from invsr.models.gradient_step import GradientStep
from invsr.models.networks import DnCNN, UNet
from invsr.priors import Denoiser
from invsr.priors.denoiser import BACKGROUND, FOREGROUND_MARGIN
from invsr.priors.tiling import tiles

F64 = torch.float64


class Fake:
    """A function in the place of a network; keeps the shapes it was called with."""

    def __init__(self, function, dim, neighbours=0, multiple=1):
        self.function, self.dim, self.neighbours, self.multiple, self.reach = function, dim, neighbours, multiple, 1
        self.shapes = []

    def __call__(self, x, sigma):
        self.shapes.append(tuple(x.shape))
        return self.function(x)


def blur_slices(x):
    return avg_pool2d(x, 3, 1, 1, count_include_pad=False)


def blur_volumes(x):
    return avg_pool3d(x, 3, 1, 1, count_include_pad=False)


def shift(x):
    return x.roll(1, -1)


def plain(network, **options):
    """Nothing but the network: no symmetries, no crop, float32."""
    return Denoiser(network, **{"symmetries": False, "crop": False, "bfloat16": False, **options})


def noise(*shape, seed=0, dtype=F64):
    return torch.randn(shape, dtype=dtype, generator=torch.Generator().manual_seed(seed))


NETWORKS = {
    "UNet 2-D": lambda: UNet(2, (4, 6), blocks=1),
    "UNet 2.5-D": lambda: UNet(2, (4, 6), blocks=1, neighbours=2),
    "UNet 3-D": lambda: UNet(3, (4, 6, 8), blocks=1),
    "DnCNN 3-D": lambda: DnCNN(3, 4, depth=3),
    "gradient step 3-D": lambda: GradientStep(UNet(3, (4, 6), blocks=1, activation="elu")),
    "gradient step 2-D": lambda: GradientStep(UNet(2, (4, 6), blocks=1, activation="elu")),
}


def made(name, dtype=F64):
    torch.manual_seed(0)
    return NETWORKS[name]().to(dtype).requires_grad_(False)


# Tiles ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("shape", "largest", "reach", "multiple"),
    [
        ((9, 11, 71), 7000, 15, 2),
        ((17, 19, 23), 1728, 3, 1),
        ((40, 41, 42), 22000, 9, 4),
        ((1, 33, 64), 600, 2, 8),
        ((64, 2, 2), 64, 5, 2),
        ((20, 20, 20), 8000, 50, 4),
    ],
)
def test_tiles_cover_the_volume_once(shape, largest, reach, multiple):
    count = np.zeros(shape, int)
    index = np.arange(count.size).reshape(shape)
    found = list(tiles(shape, largest, reach, multiple))
    for core, padded, inside in found:
        count[core] += 1
        assert index[padded].size <= largest
        assert np.array_equal(index[padded][inside], index[core])
        for n, one, around in zip(shape, core, padded, strict=True):
            assert one.start % multiple == around.start % multiple == 0
            assert around.start <= max(0, one.start - reach)
            assert around.stop >= min(n, one.stop + reach)
    assert (count == 1).all()
    assert (len(found) == 1) == (math.prod(shape) <= largest)


def test_tiles_that_are_too_small_are_refused():
    with pytest.raises(InvsrError, match="tiles of 1000 voxels are too small for a network that reaches 15 voxels far"):
        list(tiles((64, 64, 64), 1000, 15, 2))
    with pytest.raises(InvsrError, match="too small"):
        plain(made("UNet 3-D"), tile=500).prox(noise(1, 1, 40, 40, 40), 0.1)


@pytest.mark.parametrize(
    ("name", "shape", "tile", "n_calls"),
    [
        ("DnCNN 3-D", (17, 19, 23), 2200, 12),
        ("gradient step 3-D", (5, 7, 139), 4800, 2),
        ("UNet 2-D", (11, 9, 13), 300, 6),
        ("UNet 2.5-D", (11, 9, 13), 300, 6),
    ],
)
def test_tiled_is_untiled(name, shape, tile, n_calls):
    network = made(name)
    v = noise(1, 1, *shape)
    expected = plain(network, planes=0).prox(v, 0.2)
    calls = []
    network.register_forward_hook(lambda *_: calls.append(1))
    found = plain(network, planes=0, tile=tile).prox(v, 0.2)
    assert len(calls) == n_calls
    torch.testing.assert_close(found, expected, rtol=0, atol=1e-12)


@pytest.mark.parametrize("dtype", [torch.float32, F64])
@pytest.mark.parametrize("axis", [0, 1, 2])
def test_tiled_unet_is_untiled_along_every_axis(axis, dtype):
    torch.manual_seed(0)
    network = UNet(3, (4, 6), blocks=1).to(dtype)
    shape = [7, 7, 7]
    shape[axis] = 73
    v = noise(1, 1, *shape, dtype=dtype)
    with torch.no_grad():
        found, expected = plain(network, tile=7 * 7 * 70).prox(v, 0.2), plain(network).prox(v, 0.2)
    torch.testing.assert_close(found, expected, rtol=0, atol=1e-12 if dtype == F64 else 1e-5)


# Sizes and kinds of volumes -------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["UNet 3-D", "gradient step 3-D"])
@pytest.mark.parametrize("shape", [(5, 6, 7), (8, 8, 8), (1, 9, 3)])
def test_volumes_are_padded_to_what_the_network_takes(name, shape):
    network = made(name)
    v = noise(*shape)
    pad = [(0, -n % network.multiple) for n in shape]
    if name.startswith("gradient"):  # the slope at the image itself: its faces stand for the padding too
        image = v.clone().requires_grad_()
        flat = [p for pair in reversed(pad) for p in pair]
        energy = network.cost(torch.nn.functional.pad(image[None, None], flat, mode="replicate"), 0.2).sum()
        expected = v - torch.autograd.grad(energy, image)[0]
    else:
        padded = torch.from_numpy(np.pad(v.numpy(), pad, mode="edge"))[None, None]
        expected = network(padded, 0.2)[0, 0, : shape[0], : shape[1], : shape[2]]
    torch.testing.assert_close(plain(network).prox(v[None, None], 0.2)[0, 0], expected, rtol=1e-11, atol=1e-13)


def test_slices_are_padded_to_what_the_network_takes():
    network = made("UNet 2-D")
    v = noise(3, 5, 7)
    padded = torch.from_numpy(np.pad(v.numpy(), [(0, 0), (0, 1), (0, 1)], mode="edge"))
    expected = torch.stack([network(one[None, None], 0.2)[0, 0, :5, :7] for one in padded])
    torch.testing.assert_close(plain(network, planes=0).prox(v[None, None], 0.2)[0, 0], expected)


def test_unknown_networks_get_sides_that_are_multiples_of_eight():
    shapes = []

    def function(x, sigma):
        shapes.append(tuple(x.shape))
        return x

    v = noise(1, 1, 3, 9, 16)
    assert torch.equal(plain(function, planes=0).prox(v, 0.1), v)
    assert shapes == [(3, 1, 16, 16)]


EDGE_CASES = {
    "constant": lambda: torch.full((1, 1, 9, 8, 7), 3.0),
    "negative": lambda: -torch.rand(1, 1, 9, 8, 7, generator=torch.Generator().manual_seed(0)),
    "one voxel bright": lambda: pad(torch.ones(1, 1, 1, 1, 1), (12,) * 6),
    "faint": lambda: 1e-20 * noise(1, 1, 9, 8, 7, dtype=torch.float32),
    "one slice, first axis": lambda: noise(1, 1, 1, 9, 8, dtype=torch.float32),
    "one slice, second axis": lambda: noise(1, 1, 9, 1, 8, dtype=torch.float32),
    "one slice, third axis": lambda: noise(1, 1, 9, 8, 1, dtype=torch.float32),
    "two slices": lambda: noise(1, 1, 9, 2, 8, dtype=torch.float32),
    "three slices": lambda: noise(1, 1, 9, 8, 3, dtype=torch.float32),
    "one voxel": lambda: noise(1, 1, 1, 1, 1, dtype=torch.float32),
}


@pytest.mark.parametrize("case", EDGE_CASES)
@pytest.mark.parametrize("name", NETWORKS)
def test_volumes_of_every_kind_come_back_whole(name, case):
    v = EDGE_CASES[case]()
    kept = v.clone()
    out = Denoiser(made(name, torch.float32)).prox(v, 0.1)
    assert out.shape == v.shape
    assert out.dtype == v.dtype
    assert out.isfinite().all()
    assert torch.equal(v, kept)


def test_the_phase_of_an_image_is_kept_and_its_magnitude_denoised():
    prior = plain(made("UNet 3-D"))
    image, phase = noise(1, 1, 5, 6, 7).abs(), complex(0.6, -0.8)
    torch.testing.assert_close(prior.prox(phase * image, 0.2), phase * prior.prox(image, 0.2))


def test_batches_and_channels_are_independent():
    prior = plain(made("UNet 3-D"), crop=True)
    v = noise(2, 3, 5, 6, 7)
    v[1, 1] = 0
    out = prior.prox(v, 0.2)
    assert out.shape == v.shape
    for b, c in itertools.product(range(2), range(3)):
        expected = prior.prox(v[b : b + 1, c : c + 1], 0.2)
        torch.testing.assert_close(out[b : b + 1, c : c + 1], expected)


def refuse(x):
    raise AssertionError("the network was called")


@pytest.mark.parametrize("sigma", [0, 0.0, torch.tensor(0.0)])
def test_without_noise_nothing_changes(sigma):
    v = noise(1, 1, 5, 6, 7)
    assert torch.equal(Denoiser(Fake(refuse, 3)).prox(v, sigma), v)


def test_nothing_stays_nothing():
    v = torch.zeros(1, 2, 5, 6, 7)
    assert torch.equal(Denoiser(Fake(refuse, 3)).prox(v, 0.1), v)


def test_sigma_may_be_a_tensor():
    prior = plain(made("UNet 3-D"))
    v = noise(1, 1, 5, 6, 7)
    assert torch.equal(prior.prox(v, torch.tensor(0.25)), prior.prox(v, 0.25))
    assert not torch.equal(prior.prox(v, 0.5), prior.prox(v, 0.25))


def test_prox_is_differentiable():
    prior = plain(made("gradient step 3-D"))
    assert torch.autograd.gradcheck(lambda t: prior.prox(t, 0.2), noise(1, 1, 3, 4, 3).requires_grad_())


# Background -----------------------------------------------------------------------------------------


def head(sign=1.0, dtype=F64):
    """A bright block amid faint noise, and the box that is neither background nor margin."""
    v = 0.1 * BACKGROUND * noise(1, 1, 40, 33, 30, dtype=dtype).clamp(-3, 3)
    v[..., 12:18, 14:19, 20:24] = sign * (1 + 0.1 * noise(6, 5, 4, dtype=dtype, seed=1))
    v[..., 36, 28, 3] = 0.3  # one voxel is no anatomy
    # Means over three voxels see the block one voxel earlier.
    blocks = [(12, 18, 40), (14, 19, 33), (20, 24, 30)]
    return v, tuple(slice(max(0, a - 1 - FOREGROUND_MARGIN), min(n, b + 1 + FOREGROUND_MARGIN)) for a, b, n in blocks)


@pytest.mark.parametrize("sign", [1.0, -1.0])
def test_background_is_smoothed_and_the_rest_as_if_there_were_no_crop(sign):
    torch.manual_seed(0)
    network = DnCNN(3, 4, depth=4).to(F64).requires_grad_(False)
    v, box = head(sign)
    out, expected = plain(network, crop=True).prox(v, 0.2), plain(network).prox(v, 0.2)
    count = ndimage.uniform_filter(np.ones(v.shape[2:]), 3, mode="constant")
    mean = torch.from_numpy(ndimage.uniform_filter(v[0, 0].numpy(), 3, mode="constant") / count)
    outside = torch.ones(v.shape[2:], dtype=torch.bool)
    outside[box] = False
    torch.testing.assert_close(out[0, 0][outside], mean[outside], rtol=1e-10, atol=1e-13)
    near = tuple(slice(s.start + network.reach, s.stop - network.reach) for s in box)
    torch.testing.assert_close(out[0, 0][near], expected[0, 0][near], rtol=1e-11, atol=1e-13)
    assert (out - expected)[0, 0][outside].abs().max() > 1e-4


def test_network_gets_the_foreground_only():
    v, box = head()
    fake = Fake(blur_volumes, 3)
    plain(fake, crop=True).prox(v, 0.2)
    assert fake.shapes == [(1, 1, *(s.stop - s.start for s in box))]


@pytest.mark.parametrize("n", [1, 2])
def test_background_of_few_slices(n):
    v = 1e-4 * noise(1, 1, 40, 32, n)
    v[..., 10:14, 10:14, :] = 1
    out = plain(Fake(lambda x: 0 * x, 3), crop=True).prox(v, 0.1)
    box = slice(10 - 1 - FOREGROUND_MARGIN, 14 + 1 + FOREGROUND_MARGIN)
    assert not out[..., box, box, :].any()
    torch.testing.assert_close(out[..., 30, 30, 0], v[..., 29:32, 29:32, 0].mean((-1, -2)))


def test_volumes_without_background_are_not_cropped():
    v = 1 + 0.1 * noise(1, 1, 9, 10, 11)
    fake = Fake(blur_volumes, 3)
    torch.testing.assert_close(plain(fake, crop=True).prox(v, 0.2), blur_volumes(v))
    assert fake.shapes == [(1, 1, 9, 10, 11)]


# Planes ---------------------------------------------------------------------------------------------


def impulse():
    return pad(torch.ones(1, 1, 1, 1, 1, dtype=F64), (3, 3, 3, 2, 2, 3))


def across(v, axis):
    """Slices across that axis, blurred."""
    return blur_slices(v.movedim(axis + 2, 2)[0, 0, :, None])[:, 0].movedim(0, axis)[None, None]


@pytest.mark.parametrize("axis", [0, 1, 2])
def test_slices_across_one_axis(axis):
    v = impulse()
    fake = Fake(blur_slices, 2)
    out = plain(fake, planes=axis).prox(v, 0.1)
    torch.testing.assert_close(out, across(v, axis))
    spread = [int(n.max() - n.min()) for n in out[0, 0].nonzero(as_tuple=True)]
    assert spread == [0 if n == axis else 2 for n in range(3)]
    assert fake.shapes == [(v.shape[axis + 2], 1, *(v.shape[n + 2] for n in range(3) if n != axis))]


def test_all_planes_are_the_mean_of_three():
    v = noise(1, 1, 5, 6, 7)
    expected = sum(across(v, axis) for axis in range(3)) / 3
    torch.testing.assert_close(plain(Fake(blur_slices, 2), planes="all").prox(v, 0.1), expected)


def test_random_planes_are_each_of_the_three():
    v = noise(1, 1, 5, 6, 7)
    prior = plain(Fake(blur_slices, 2), planes="random")
    candidates = [across(v, axis) for axis in range(3)]
    seen = [[torch.allclose(out, one) for one in candidates] for out in (prior.prox(v, 0.1) for _ in range(30))]
    assert all(sum(one) == 1 for one in seen)
    assert min(map(sum, zip(*seen, strict=True))) >= 3


def test_planes_mean_nothing_to_networks_of_volumes():
    v = noise(1, 1, 5, 6, 7)
    for planes in ("random", "all", 1):
        torch.testing.assert_close(plain(Fake(blur_volumes, 3), planes=planes).prox(v, 0.1), blur_volumes(v))


@pytest.mark.parametrize("axis", [0, 1, 2])
@pytest.mark.parametrize("tile", [1, 10**6])
def test_neighbours_repeat_at_the_ends(axis, tile):
    v = noise(1, 1, 5, 6, 7)
    slices = v.movedim(axis + 2, 0)
    n = len(slices)
    for channel in range(5):
        fake = Fake(lambda x, channel=channel: x[:, channel : channel + 1], 2, neighbours=2)
        out = plain(fake, planes=axis, tile=tile).prox(v, 0.1).movedim(axis + 2, 0)
        expected = slices[[min(max(i + channel - 2, 0), n - 1) for i in range(n)]]
        assert torch.equal(out, expected)
        assert all(shape[1] == 5 for shape in fake.shapes)
        assert len(fake.shapes) == (n if tile == 1 else 1)


# Symmetries -----------------------------------------------------------------------------------------


@pytest.mark.parametrize(("network", "dim"), [(blur_volumes, 3), (blur_slices, 2)])
def test_symmetries_do_nothing_to_an_equivariant_network(network, dim):
    v = noise(1, 1, 5, 6, 7)
    expected = plain(Fake(network, dim), planes=1).prox(v, 0.1)
    prior = plain(Fake(network, dim), planes=1, symmetries=True)
    for _ in range(20):
        torch.testing.assert_close(prior.prox(v, 0.1), expected)


@pytest.mark.parametrize(("dim", "axes"), [(3, (2, 3, 4)), (2, (4,))])
def test_symmetries_turn_and_flip_what_the_network_sees(dim, axes):
    v = noise(1, 1, 5, 6, 7)
    prior = plain(Fake(shift, dim), planes=0, symmetries=True)
    candidates = [v.roll(step, axis) for axis in axes for step in (1, -1)]
    seen = [[torch.equal(out, one) for one in candidates] for out in (prior.prox(v, 0.1) for _ in range(60))]
    assert all(sum(one) == 1 for one in seen)
    assert min(map(sum, zip(*seen, strict=True))) >= 2


def test_a_number_of_symmetries_is_the_mean_over_as_many():
    v = noise(1, 1, 5, 6, 7)
    one = plain(Fake(shift, 3), symmetries=True, seed=2)
    expected = torch.stack([one.prox(v, 0.1) for _ in range(5)]).mean(0)
    torch.testing.assert_close(plain(Fake(shift, 3), symmetries=5, seed=2).prox(v, 0.1), expected)
    with pytest.raises(InvsrError, match="symmetries is -1: use True, False or a number"):
        plain(Fake(shift, 3), symmetries=-1)


@pytest.mark.parametrize("options", [{"symmetries": True, "planes": 0}, {"planes": "random"}])
def test_seed_makes_runs_repeatable(options):
    v = noise(1, 1, 5, 6, 7)

    def run(seed):
        prior = plain(Fake(shift, 2), seed=seed, **options)
        return torch.stack([prior.prox(v, 0.1) for _ in range(12)])

    state = torch.random.get_rng_state()
    first = run(3)
    assert torch.equal(torch.random.get_rng_state(), state)  # of no one else
    torch.rand(1)
    assert torch.equal(run(3), first)
    assert not torch.equal(run(4), first)


# Cost -----------------------------------------------------------------------------------------------


def test_only_gradient_steps_have_a_cost():
    z = noise(1, 1, 4, 6, 8)
    for network in (made("UNet 3-D"), made("DnCNN 3-D"), Fake(blur_volumes, 3)):
        assert Denoiser(network).cost(z, 0.2) is None
    prior = Denoiser(made("gradient step 3-D"))
    assert prior.cost(z) is None
    assert prior.cost(z, 0.0) is None


def test_cost_is_that_of_the_network_over_the_variance():
    network = made("gradient step 3-D")
    z = noise(2, 3, 4, 6, 8)
    found = Denoiser(network).cost(z, torch.tensor(0.2))
    assert found.ndim == 0
    expected = sum(float(network.cost(one[None, None], 0.2)) for one in z.flatten(0, 1)) / 0.04
    assert float(found) == pytest.approx(expected, rel=1e-6)


def test_cost_of_sizes_that_need_padding_and_of_complex_volumes():
    network = made("gradient step 3-D")
    prior = Denoiser(network)
    z = noise(5, 6, 7)
    padded = torch.from_numpy(np.pad(z.numpy(), [(0, 1), (0, 0), (0, 1)], mode="edge"))
    expected = float(network.cost(padded[None, None], 0.2)) / 0.04
    assert float(prior.cost(z[None, None], 0.2)) == pytest.approx(expected)
    image = z.abs()[None, None]
    assert float(prior.cost(complex(0.6, -0.8) * image, 0.2)) == pytest.approx(float(prior.cost(image, 0.2)))


@pytest.mark.parametrize(("planes", "axes"), [(1, [1]), (2, [2]), ("all", [0, 1, 2]), ("random", [0, 1, 2])])
def test_cost_of_slices_is_the_mean_over_the_axes(planes, axes):
    network = made("gradient step 2-D")
    z = noise(4, 6, 8)
    each = [sum(float(network.cost(one[None, None], 0.2)) for one in z.movedim(axis, 0)) for axis in axes]
    found = Denoiser(network, planes=planes).cost(z[None, None], 0.2)
    assert float(found) == pytest.approx(np.mean(each) / 0.04)


@pytest.mark.parametrize(("name", "options"), [("gradient step 3-D", {}), ("gradient step 2-D", {"planes": "all"})])
def test_prox_is_a_gradient_step_on_the_cost(name, options):
    network = made(name)
    prior = plain(network, **options)
    z, direction, h = noise(1, 1, 4, 6, 8), noise(1, 1, 4, 6, 8, seed=1), 1e-5
    slope = float(prior.cost(z + h * direction, 0.2) - prior.cost(z - h * direction, 0.2)) / (2 * h)
    expected = float(((z - prior.prox(z, 0.2)) * direction).sum()) / 0.04
    assert slope == pytest.approx(expected, rel=1e-6)


# Options --------------------------------------------------------------------------------------------


def test_refuses():
    with pytest.raises(InvsrError, match="dim is 4: a denoiser takes slices"):
        Denoiser(Fake(blur_volumes, 3), dim=4)
    for planes in ("axial", 3, -1):
        with pytest.raises(InvsrError, match="planes .* use random, all or an axis 0, 1, 2"):
            Denoiser(Fake(blur_slices, 2), planes=planes)


def test_what_the_network_says_of_itself():
    prior = Denoiser(made("UNet 2.5-D"))
    assert (prior.dim, prior.neighbours, prior.multiple, prior.name) == (2, 2, 2, "UNet")
    assert prior.reach == prior.network.reach
    assert Denoiser(lambda x, sigma: x).dim == 2
    assert Denoiser(Fake(blur_volumes, 3), name="blur").name == "blur"
    assert prior.is_denoiser and not prior.quadratic


def test_network_moves_with_the_prior():
    network = made("UNet 3-D", torch.float32)
    prior = plain(network)
    assert {f"network.{name}" for name in network.state_dict()} == set(prior.state_dict())
    v = noise(1, 1, 5, 6, 7)
    expected = prior.prox(v.float(), 0.2)
    assert prior.to(F64).prox(v, 0.2).dtype == F64
    torch.testing.assert_close(prior.prox(v, 0.2).float(), expected, rtol=1e-4, atol=1e-5)
    assert all(parameter.device.type == "meta" for parameter in prior.to("meta").network.parameters())


@pytest.mark.parametrize("bfloat16", [True, False, None])
def test_number_format_of_the_network(bfloat16):
    formats = []

    def function(x):
        formats.append(torch.is_autocast_enabled("cpu"))
        return x

    v = noise(1, 1, 5, 6, 7, dtype=torch.float32)
    out = plain(Fake(function, 3), bfloat16=bfloat16).prox(v, 0.1)
    assert formats == [multiplies_bfloat16(v.device) if bfloat16 is None else bfloat16]
    assert torch.equal(out, v)


def test_bfloat16_changes_little():
    network = made("UNet 3-D", torch.float32)
    v = noise(1, 1, 9, 8, 7, dtype=torch.float32)
    out, expected = plain(network, bfloat16=True).prox(v, 0.2), plain(network).prox(v, 0.2)
    assert out.dtype == torch.float32
    assert 0 < float((out - expected).norm()) < 0.02 * float((v - expected).norm())

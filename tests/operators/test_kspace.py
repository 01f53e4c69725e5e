"""k-space operators against numpy's FFT and what physics says of truncation."""

import numpy as np
import pytest
import torch

from invsr.errors import InvsrError
from invsr.grid import Grid
from invsr.noise.sampling import add_noise
from invsr.operators.kspace import KSpaceFilter, KSpaceMask
from invsr.operators.kspace_crop import KSpaceCrop, zero_fill
from invsr.operators.kspace_weights import apodisation, elliptic, partial_fourier, random_mask

C128 = torch.complex128
GRID = Grid((8, 7, 6), np.diag([1.0, 1.2, 2.0, 1.0]))


def volume(shape, seed=0, dtype=C128):
    return torch.randn((1, 1, *shape), dtype=dtype, generator=torch.Generator().manual_seed(seed))


def centred_fft(x, inverse=False):
    transform = np.fft.ifftn if inverse else np.fft.fftn
    return np.fft.fftshift(transform(np.fft.ifftshift(x), norm="ortho"))


@pytest.mark.parametrize("kept", [(8, 7, 6), (4, 7, 6), (5, 4, 3), (6, 5, 2)])
def test_crop_is_numpys_cropped_spectrum(kept):
    x = volume(GRID.shape)
    spectrum = np.fft.fftshift(np.fft.fftn(x[0, 0].numpy()))
    slices = tuple(slice(n // 2 - m // 2, n // 2 - m // 2 + m) for n, m in zip(GRID.shape, kept, strict=True))
    expected = np.fft.ifftn(np.fft.ifftshift(spectrum[slices])) * np.prod(kept) / np.prod(GRID.shape)
    operator = KSpaceCrop(GRID, kept)
    np.testing.assert_allclose(operator(x)[0, 0].numpy(), expected, atol=1e-12)
    # Voxel 0 stays where it is, and the field of view keeps its size.
    np.testing.assert_allclose(operator.range.origin, GRID.origin)
    np.testing.assert_allclose(operator.range.extent, GRID.extent)


@pytest.mark.parametrize("kept", [(4, 7, 3), (5, 3, 6)])
def test_crop_keeps_constants_and_low_waves_where_they_are(kept):
    operator = KSpaceCrop(GRID, kept)
    constant = torch.full((1, 1, *GRID.shape), 2.0, dtype=torch.float64)
    torch.testing.assert_close(operator(constant), torch.full((1, 1, *kept), 2.0, dtype=torch.float64))

    def wave(grid):
        return torch.from_numpy(np.cos(2 * np.pi * grid.points()[..., 0] / GRID.extent[0] + 0.3))[None, None]

    torch.testing.assert_close(operator(wave(GRID)), wave(operator.range))


def test_truncation_rings():
    edge = torch.zeros((1, 1, 64, 1, 1), dtype=torch.float64)
    edge[:, :, 16:48] = 1
    seen = KSpaceCrop(Grid((64, 1, 1), np.eye(4)), (24, 1, 1))(edge)
    assert 1.05 < float(seen.max()) < 1.15  # Gibbs: 9 % beyond a jump of 1


def test_zero_filling_is_undone_by_cropping():
    up = zero_fill(GRID, (12, 9, 11))
    x = volume(GRID.shape)
    torch.testing.assert_close((KSpaceCrop(up.range, GRID.shape) @ up)(x), x)


@pytest.mark.parametrize("real", [False, True])
def test_mask_is_the_centred_transform(real):
    weights = torch.rand(GRID.shape, dtype=torch.float64, generator=torch.Generator().manual_seed(1))
    x = volume(GRID.shape, dtype=torch.float64 if real else C128)
    expected = weights.numpy() * centred_fft(x[0, 0].numpy())
    operator = KSpaceMask(GRID, weights, real=real)
    np.testing.assert_allclose(operator(x)[0, 0].numpy(), expected, atol=1e-12)
    assert operator.adjoint(operator(x)).is_complex() is not real


def test_sense_unfolds_what_one_coil_cannot():
    grid = Grid((16, 12, 4), np.eye(4))
    x = volume(grid.shape, dtype=torch.float64) + 0j
    position = torch.linspace(-1, 1, 16, dtype=torch.float64)[:, None, None]
    coils = torch.stack([(1 + position).expand(grid.shape), (1 - position).expand(grid.shape)]) + 0j
    every_second = torch.zeros(grid.shape, dtype=torch.float64)
    every_second[::2] = 1
    operator = KSpaceMask(grid, every_second, coils)
    found = operator.solve(operator.adjoint(operator(x)), 1e-8, rtol=1e-10, max_iter=500)
    assert float((found.x - x).abs().max()) < 1e-3
    alone = KSpaceMask(grid, every_second)
    folded = alone.solve(alone.adjoint(alone(x)), 1e-8)
    assert folded.n_iter == 0 and float((folded.x - x).abs().max()) > 0.5


def test_noise_in_k_space_stays_white():
    operator = KSpaceMask(GRID, torch.ones(GRID.shape, dtype=torch.float64))
    y = add_noise(
        torch.zeros((200, 1, *GRID.shape), dtype=torch.float64), 0.5, "complex", torch.Generator().manual_seed(0)
    )
    image = operator.adjoint(y)
    assert float(image.real.std()) == pytest.approx(0.5, rel=0.02)
    assert operator.measured_coordinates(y).numel() == y.numel()


def test_filter_is_multiplication_in_k_space():
    weights = apodisation(GRID.shape, "hamming")
    x = volume(GRID.shape, dtype=torch.float64)
    expected = centred_fft(weights.numpy() * centred_fft(x[0, 0].numpy()), inverse=True)
    # An even size has an unpaired Nyquist frequency; the window gives it the weight of both its signs.
    np.testing.assert_allclose(KSpaceFilter(GRID, weights)(x)[0, 0].numpy(), expected.real, atol=1e-12)


def test_weights():
    shape = (10, 8, 6)
    half = partial_fourier(shape, 0.6, 0)
    assert half.mean() == pytest.approx(0.6) and half[5:].all() and not half[0].any()
    ball = elliptic(shape)
    assert ball[5, 4, 3] == 1 and ball[0, 0, 0] == 0 and 0.4 < float(ball.mean()) < 0.75
    drawn = [random_mask((64, 64, 1), 4.0, 0.1, torch.Generator().manual_seed(seed)) for seed in (0, 0, 1)]
    assert torch.equal(drawn[0], drawn[1]) and not torch.equal(drawn[0], drawn[2])
    assert float(drawn[0].mean()) == pytest.approx(0.25, rel=0.1)
    for kind in ("hamming", "tukey"):
        window = apodisation(shape, kind)
        assert float(window[5, 4, 3]) == pytest.approx(1.0) and float(window.min()) >= 0


@pytest.mark.parametrize(
    "call, words",
    [
        (lambda: KSpaceCrop(GRID, (9, 7, 6)), "zero_fill"),
        (lambda: zero_fill(GRID, (4, 7, 6)), "KSpaceCrop"),
        (lambda: KSpaceMask(GRID, torch.ones(2, 2, 2)), "weights"),
        (lambda: KSpaceMask(GRID, torch.ones(GRID.shape), torch.ones(2, 3, 3, 3)), "coils"),
        (lambda: KSpaceMask(GRID, torch.ones(GRID.shape), real=True)(volume(GRID.shape)), "real=False"),
        (lambda: partial_fourier((8, 8, 8), 0.3, 0), "0.5 to 1"),
        (lambda: apodisation((8, 8, 8), "triangle"), "triangle"),
    ],
)
def test_refuses(call, words):
    with pytest.raises(InvsrError, match=words):
        call()


def test_gradient_in_the_coil_maps():
    generator = torch.Generator().manual_seed(3)
    mask = (torch.rand(GRID.shape, generator=generator) > 0.4).double()
    coils = torch.randn(2, *GRID.shape, dtype=torch.complex128, generator=generator).requires_grad_()
    x = torch.randn(1, 1, *GRID.shape, dtype=torch.complex128, generator=generator)
    y = torch.randn(1, 2, *GRID.shape, dtype=torch.complex128, generator=generator)
    for function in (
        lambda c: KSpaceMask(GRID, mask, c)(x),
        lambda c: KSpaceMask(GRID, mask, c).adjoint(y),
        lambda c: KSpaceMask(GRID, mask, c).gram(x),
        lambda c: KSpaceMask(GRID, mask, c).solve(x, 0.5, rtol=1e-13).x,
    ):
        assert torch.autograd.gradcheck(lambda c, f=function: torch.view_as_real(f(c)), coils, fast_mode=True)

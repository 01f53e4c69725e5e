"""Images from a part of k-space, filled with zeros."""

import numpy as np
import torch


def zero_filled(image, share, noise=0.0, ellipse=False, magnitude=True, seed=0):
    """Slices (i, j, k) from the central share of k-space along i and j, with noise of sd `noise` per pixel measured."""
    generator = np.random.default_rng(seed)
    complex_noise = generator.normal(size=image.shape) + 1j * generator.normal(size=image.shape)
    k = np.fft.fftshift(np.fft.fft2(image + noise * complex_noise, axes=(0, 1)), axes=(0, 1))
    i, j = (np.abs(np.arange(n) - n // 2) / (n / 2) / part for n, part in zip(image.shape, share, strict=False))
    inside = i[:, None] ** 2 + j**2 <= 1 if ellipse else np.maximum(i[:, None], j) <= 1
    found = np.fft.ifft2(np.fft.ifftshift(k * inside[..., None], axes=(0, 1)), axes=(0, 1))
    return torch.from_numpy(np.ascontiguousarray(np.abs(found) if magnitude else found.real)).float()


def partial_fourier(image, axis, share, noise, seed=0):
    """Magnitudes from that share of k-space along an axis, on one side, of a complex image with smooth phase."""
    generator = np.random.default_rng(seed)
    i, j = np.meshgrid(*(np.linspace(-1, 1, n) for n in image.shape[:2]), indexing="ij")
    turned = image * np.exp(1j * (0.8 * i + 0.5 * i * j + 0.4 * j**2))[..., None]
    turned = turned + noise * (generator.normal(size=image.shape) + 1j * generator.normal(size=image.shape))
    k = np.fft.fftshift(np.fft.fft(turned, axis=axis), axes=axis).swapaxes(axis, 0)
    k[: k.shape[0] - round(share * k.shape[0])] = 0
    found = np.fft.ifft(np.fft.ifftshift(k.swapaxes(axis, 0), axes=axis), axis=axis)
    return torch.from_numpy(np.abs(found)).float()


def measured_sd(share, noise, ellipse=False):
    """Sd of a pixel's noise in what `zero_filled` gives."""
    return noise * np.sqrt(np.prod(share) * (np.pi / 4 if ellipse else 1))

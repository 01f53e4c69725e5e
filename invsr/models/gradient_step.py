"""A denoiser that is a gradient step on an explicit cost."""

from __future__ import annotations

import math
from collections.abc import Sequence
from contextlib import nullcontext
from typing import Any

import torch
from torch import Tensor
from torch.autograd import forward_ad

from invsr.models.engines import only_torch
from invsr.models.networks import Network

# Range of plausible intensities for a peak of 1: the denoiser draws intensities outside it back.
RANGE = (-0.1, 1.5)
# Working memory, float32 numbers per voxel and channel at full resolution; measured.
KEPT = 15.5


class GradientStep(Network):
    """A denoiser that is a gradient step on an explicit cost: ``D = Id - grad g``.

    .. code-block:: text

        g(x) = 1/2 ||x - N(x)||^2 + 1/2 ||x - P(x)||^2        P: nearest intensities in RANGE

    With it, plug-and-play half-quadratic splitting minimises ``data term + lam / sigma^2 g``: see `invsr.solvers.HQS`.
    The second term is 0 for images scaled to a peak of 1. Without it, g is low at intensities far from those that N was
    trained on, and a long descent ends there.

    Parameters
    ----------
    network : Network
        N; continuously differentiable for the theorem to hold (activation "elu").

    References
    ----------
    Hurault, Leclaire, Papadakis (2022), Gradient step denoiser for convergent plug-and-play, ICLR.
    """

    is_gradient_step = True

    def __init__(self, network: Network) -> None:
        super().__init__(network.dim)
        self.network = network
        self.config = {"network": {"architecture": type(network).__name__, **network.config}}
        self.multiple = network.multiple
        self.reach = 2 * network.reach
        self.width = network.width

    def memory(self, shape: Sequence[int], device: torch.device) -> int:
        # All layers' outputs are kept for the way back.
        return round(4 * KEPT * self.width * math.prod(shape))

    def cost(self, x: Tensor, sigma: float | Tensor) -> Tensor:
        """g(x), summed over voxels; one number per image of the batch."""
        outside = (x - x.clamp(*RANGE)).square()
        with only_torch():  # as the gradient is: a descent is told by the last digits
            found = self.network(x, sigma)
        energy: Tensor = 0.5 * ((x - found).square() + outside).flatten(1).sum(1)
        return energy

    def forward(self, x: Tensor, sigma: float | Tensor) -> Tensor:
        level = torch.as_tensor(sigma, dtype=x.dtype, device=x.device)
        slope: Tensor = _Slope.apply(x, level, self.network, *self.network.parameters())
        return x.clamp(*RANGE) - slope


class _Slope(torch.autograd.Function):
    """``grad g = J^T r`` for ``g = 1/2 ||r||^2``, r the network's residual, without a second backward pass.

    The vector-Jacobian product of grad g with w is the gradient of ``<r, J w>``, where J w comes by forward
    differentiation: convolutions stay convolutions with small kernels, which twice backward they do not.
    """

    @staticmethod
    def forward(ctx: Any, x: Tensor, sigma: Tensor, network: Network, *parameters: Tensor) -> Tensor:
        ctx.save_for_backward(x, sigma)
        ctx.network = network
        ctx.coarse = torch.is_autocast_enabled(x.device.type)
        with torch.enable_grad():
            inner = x.detach().requires_grad_()
            energy = 0.5 * (inner - network(inner, sigma)).square().sum()
            (slope,) = torch.autograd.grad(energy, inner)
        return slope

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> Any:
        x, sigma = ctx.saved_tensors
        network, kind = ctx.network, x.device.type
        needed = [*ctx.needs_input_grad[:2], *ctx.needs_input_grad[3:]]
        coarse = torch.autocast(kind, torch.bfloat16) if ctx.coarse else nullcontext()
        if torch.is_grad_enabled():
            # The result is to be differentiated again: autograd all the way, slower.
            with coarse:
                inner = x if x.requires_grad else x.detach().requires_grad_()
                energy = 0.5 * (inner - network(inner, sigma)).square().sum()
                (slope,) = torch.autograd.grad(energy, inner, create_graph=True)
            variables = [v for v, wanted in zip([inner, sigma, *network.parameters()], needed, strict=True) if wanted]
            found = iter(torch.autograd.grad(slope, variables, grads[0], create_graph=True, allow_unused=True))
            out = [next(found) if wanted else None for wanted in needed]
            return *out[:2], None, *out[2:]
        with torch.enable_grad(), coarse, forward_ad.dual_level():
            inner, level = x.detach().requires_grad_(), sigma.detach().requires_grad_()
            dual = forward_ad.make_dual(inner, grads[0].contiguous())  # type: ignore[no-untyped-call]
            residual = dual - network(dual, level)
            value, tangent = forward_ad.unpack_dual(residual)  # type: ignore[no-untyped-call]
            variables = [v for v, wanted in zip([inner, level, *network.parameters()], needed, strict=True) if wanted]
            found = iter(torch.autograd.grad((value * tangent).sum(), variables, allow_unused=True))
        out = [next(found) if wanted else None for wanted in needed]
        return *out[:2], None, *out[2:]

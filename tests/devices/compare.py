"""The same computation on the CPU and on CUDA."""

import torch

from invsr.numerics.vectors import parts


def everywhere(values, device):
    """Tensors, alone, in tuples or lists, on a device; anything else as it is."""
    if isinstance(values, torch.Tensor | torch.nn.Module):
        return values.to(device)
    return type(values)(everywhere(one, device) for one in values) if isinstance(values, tuple | list) else values


def deviations(found, expected, device):
    """Largest relative differences of tensors on a device from those of the CPU."""
    for a, b in zip(parts(found), parts(expected), strict=True):
        assert (a.device.type, a.dtype, a.shape) == (device.type, b.dtype, b.shape)
        assert b.device.type == "cpu"
        yield float((a.detach().cpu() - b.detach()).abs().max() / b.detach().abs().max().clamp(min=1e-30))


def assert_same(found, expected, device, rtol):
    assert max(deviations(found, expected, device)) <= rtol

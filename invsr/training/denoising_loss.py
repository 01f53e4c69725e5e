"""The loss of denoisers."""

from __future__ import annotations

from torch import Tensor

# Input errors below this share of the peak weigh less than in proportion.
FLOOR = 0.02


def relative_error(estimate: Tensor, noisy: Tensor, clean: Tensor) -> Tensor:
    """``mean of rms(estimate - clean) / (rms(noisy - clean) + FLOOR)`` over a batch (batch, channel, *image).

    Division by the input error gives all noise levels similar weight; FLOOR keeps the smallest from dominating.
    """
    before, after = (square_error(one, clean).sqrt() for one in (noisy, estimate.float()))
    return (after / (before + FLOOR)).mean()


def square_error(estimate: Tensor, clean: Tensor) -> Tensor:
    """Mean square error of each image of a batch."""
    return (estimate - clean).square().flatten(1).mean(1)

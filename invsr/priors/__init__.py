"""Priors: what volumes look like."""

from invsr.priors.base import Prior
from invsr.priors.tikhonov import Tikhonov
from invsr.priors.tv import TV

__all__ = ["TV", "Prior", "Tikhonov"]

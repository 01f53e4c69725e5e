"""Priors: what volumes look like."""

from invsr.models.registry import card, models
from invsr.models.weights import load_weights, save_weights
from invsr.priors.base import Prior
from invsr.priors.denoiser import Denoiser
from invsr.priors.joint_tv import JointTV
from invsr.priors.loading import pretrained
from invsr.priors.tikhonov import Tikhonov
from invsr.priors.tv import TV

__all__ = [
    "TV",
    "Denoiser",
    "JointTV",
    "Prior",
    "Tikhonov",
    "card",
    "load_weights",
    "models",
    "pretrained",
    "save_weights",
]

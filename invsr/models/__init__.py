"""Networks, their weights files, and the registry of those that come with the package."""

from invsr.models.registry import card, models
from invsr.models.weights import load_weights, save_weights

__all__ = ["card", "load_weights", "models", "save_weights"]

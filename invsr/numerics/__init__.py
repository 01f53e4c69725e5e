"""Numerical tools that know nothing of MRI."""

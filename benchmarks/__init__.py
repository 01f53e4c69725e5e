"""Measurements behind the figures of the pages: ``python -m benchmarks.FOLDER.NAME`` from the root of the repository.

quality/ compares results with the truth, speed/ measures seconds and memory, tuning/ is what constants of the package
were chosen by, release/ stores weights and reference figures.
"""

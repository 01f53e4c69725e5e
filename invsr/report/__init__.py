"""The record of a reconstruction: one HTML page to look at, one JSON file to compute with."""

from invsr.report.write import write_report

__all__ = ["write_report"]

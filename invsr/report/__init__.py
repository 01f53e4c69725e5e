"""The record of a reconstruction: one HTML page to look at, one JSON file to compute with."""

from invsr.report.write import make_folder, write_report

__all__ = ["make_folder", "write_report"]

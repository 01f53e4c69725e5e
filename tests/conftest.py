"""What several test files use."""

import sys

import pytest

from invsr.app import command_line as cli


@pytest.fixture
def run(monkeypatch, capsys):
    """Run the command line in this process: (exit code, standard output, standard error)."""

    def call(*words):
        monkeypatch.setattr(sys, "argv", ["invsr", *map(str, words)])
        code = 0
        try:
            cli.main()
        except SystemExit as end:
            code = end.code or 0
        out, err = capsys.readouterr()
        return code, out, err

    return call

"""``python -m invsr`` is the command line."""

from invsr.cli import main

main()

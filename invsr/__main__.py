"""``python -m invsr`` is the command line."""

from invsr.app.command_line import main

main()

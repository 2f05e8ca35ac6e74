"""The command line, as ``python -m promptreel``."""

from promptreel.cli import main

main()

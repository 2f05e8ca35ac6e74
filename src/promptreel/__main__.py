"""``python -m promptreel`` is ``promptreel``."""

from promptreel.cli import main

main()

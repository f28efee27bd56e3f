"""The command `python -m helpers.compare`."""

import sys

from helpers.compare.command import main

if __name__ == "__main__":
    sys.exit(main())

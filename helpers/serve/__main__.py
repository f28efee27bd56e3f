"""The command `python -m helpers.serve`."""

import sys

from helpers.serve.command import main

if __name__ == "__main__":
    sys.exit(main())

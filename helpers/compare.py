"""The command `python -m helpers.compare`."""

import sys

from helpers.run.compare import main

if __name__ == "__main__":
    sys.exit(main())

"""The command `python -m helpers.download`."""

import sys

from helpers.dataset.download import main

if __name__ == "__main__":
    sys.exit(main())

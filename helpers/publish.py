"""The command `python -m helpers.publish`."""

import sys

from helpers.run.publish import main

if __name__ == "__main__":
    sys.exit(main())

"""The command `python -m helpers.run`."""

import sys

from helpers.run.runner import main

sys.exit(main())

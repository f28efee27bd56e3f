"""The command `python -m helpers.predict`."""

import sys

from helpers.predict.command import main

sys.exit(main())

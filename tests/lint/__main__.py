"""Every check, each complaint on its line: `python -m tests.lint`."""

from __future__ import annotations

import sys

from tests.lint import documents, environment, notebooks


def main() -> int:
    """Exit status 1 where any check complains."""
    checks = [check for module in (documents, environment, notebooks) for check in module.CHECKS]
    complaints = [complaint for check in checks for complaint in check()]
    print("\n".join(complaints) or f"All {len(checks)} checks of documents, environment and notebooks passed.")
    return int(bool(complaints))


if __name__ == "__main__":
    sys.exit(main())

"""``python -m trio_supervisor``."""

from __future__ import annotations

import sys

from trio_supervisor.cli.main import main

if __name__ == "__main__":
    sys.exit(main())

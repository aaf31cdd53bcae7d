"""Return the time zone of the system, as cron(8) knows it."""

from __future__ import annotations

import os
from datetime import UTC, tzinfo
from typing import Final
from zoneinfo import ZoneInfo

_LOCAL_TIME: Final = "/etc/localtime"


def local_zone() -> tzinfo:
    """Return the zone of TZ or of /etc/localtime, with its changes of summer time.

    UTC where neither is there or can be read.
    """
    try:
        if name := os.environ.get("TZ", "").removeprefix(":"):
            return ZoneInfo(name)
        with open(_LOCAL_TIME, "rb") as file:
            return ZoneInfo.from_file(file, key="local")
    except (KeyError, ValueError, OSError):
        return UTC

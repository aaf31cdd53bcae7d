"""Test the frame around the exports."""

from __future__ import annotations

from typing import cast

import pytest
import trio

from trio_supervisor.controller.metrics import MetricsSource
from trio_supervisor.controller.telemetry.settings import TelemetrySettings
from trio_supervisor.controller.telemetry.telemetry import Telemetry


async def test_broken_installation_is_logged_and_ends_nothing(
    caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    settings = TelemetrySettings(endpoint="http://a", shown="a", metrics_interval=1)
    telemetry = Telemetry(cast(MetricsSource, None), settings)

    def fail(_: Telemetry) -> None:
        raise ImportError("no module named opentelemetry.sdk")

    monkeypatch.setattr(Telemetry, "_load", fail)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(telemetry.run)
        await telemetry.finish()
    [record] = caplog.records
    assert record.getMessage() == (
        "nothing is exported by OTLP: ImportError: no module named opentelemetry.sdk"
    )

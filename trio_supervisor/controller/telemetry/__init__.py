"""Export metrics and traces by OpenTelemetry: only this folder imports it."""

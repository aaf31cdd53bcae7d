"""Describe the result of a health check in one line. Pure."""

from __future__ import annotations

from collections.abc import Mapping

from trio_supervisor.policy.crash_text import parenthesized


def describe_health(
    is_ok: bool, details: Mapping[str, object], limit: int | None = None
) -> str:
    """Return ``ok``, or ``failing`` and the reason.

    Example:
        ``failing, not ready: web.0 (starting), web.1 (backoff, exit code 3)``

    Args:
        details: Those of the check, as `Controller.health` returns them.
        limit: Maximum number of workers to list; None: all.
    """
    if is_ok:
        return "ok"
    parts = ["failing"]
    if details.get("stopping"):
        parts.append("shutting down")
    alone = details.get("without_supervisor")
    if isinstance(alone, int | float) and alone > 0:
        parts.append(f"no supervisor for {alone:.1f} s")
    if shown := _not_ready(details):
        hidden = 0 if limit is None else len(shown) - limit
        more = f" and {hidden} more" if hidden > 0 else ""
        parts.append(f"not ready: {', '.join(shown[:limit])}{more}")
    return ", ".join(parts)


def _not_ready(details: Mapping[str, object]) -> list[str]:
    """Return what is not ready, with the reason where it is known."""
    names, why = details.get("not_ready"), details.get("why")
    if not isinstance(names, list):
        return []
    if isinstance(why, Mapping) and why:
        return [f"{name} {parenthesized(str(reason))}" for name, reason in why.items()]
    return [str(name) for name in names]

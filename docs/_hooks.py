"""Hooks of MkDocs."""


def on_page_content(html: str, **_: object) -> str:
    """Show the ``::`` before a literal block of a docstring as one colon."""
    return html.replace("::</p>", ":</p>")

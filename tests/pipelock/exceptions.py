"""Cases that the stand-in does not pass, each with the reason; the real image has none."""

from __future__ import annotations

EXCEPTIONS = {
    "process/no-shell": "the image holds a Python, and so an operating system",
    "process/check-url": "the launcher asks check for a whole file, never for one URL",
    "strict/empty-target": "h11 ends a connection whose request line is malformed, without words",
    "plain/image-type": "media_policy is not implemented, and refused where it is configured",
    "block/body-base64": "encoded bodies are not decoded: what patterns find is the real image's to prove",
    "endpoints/fetch": "/fetch judges and does not fetch: no launcher uses it",
}


def exception(ident: str) -> str:
    """Return why the stand-in need not pass a case; empty if it must."""
    return EXCEPTIONS.get(ident, "")

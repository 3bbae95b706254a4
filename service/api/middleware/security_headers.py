"""What every answer tells a browser not to do with it."""

import base64
import hashlib
import re
from typing import Any

from starlette.datastructures import MutableHeaders
from starlette.types import ASGIApp, Message, Receive, Scope, Send

FIXED = {
    "X-Content-Type-Options": "nosniff",
    "X-Frame-Options": "DENY",
    "Referrer-Policy": "no-referrer",
    # Of requests without CORS alone (an <img> on another site, say): what FAIRTUNE_CORS_ORIGINS
    # allows is not touched by it.
    "Cross-Origin-Resource-Policy": "same-origin",
}
DATA_POLICY = "default-src 'none'; frame-ancestors 'none'"
"""Of JSON, text and files: nothing that they hold is run, shown in a frame or loaded."""

PAGES = frozenset({"/docs", "/redoc"})
"""HTML of ours, which nothing that a user sent is part of."""

_SCRIPT = re.compile(rb"<script(?![^>]*\bsrc=)[^>]*>(.*?)</script>", re.DOTALL | re.IGNORECASE)


class SecurityHeaders:
    """Adds them where the answer has none of its own."""

    def __init__(self, app: ASGIApp) -> None:
        self.app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        path = scope["path"].removeprefix(scope.get("root_path", ""))
        held: Message | None = None
        page = bytearray()

        async def marked(message: Message) -> None:
            nonlocal held
            if message["type"] == "http.response.start":
                _mark(MutableHeaders(scope=message), path)
                if path in PAGES and message["status"] == 200:
                    held = message  # until its scripts are known
                    return
            elif held is not None and message["type"] == "http.response.body":
                page.extend(message.get("body", b""))
                if message.get("more_body", False):
                    return
                MutableHeaders(scope=held)["Content-Security-Policy"] = page_policy(bytes(page))
                await send(held)
                message = {"type": "http.response.body", "body": bytes(page)}
                held = None
            await send(message)

        await self.app(scope, receive, marked)


def cors(origins: list[str]) -> dict[str, Any]:
    """The arguments of Starlette's CORSMiddleware for pages of `origins`, which send a key.

    No credentials: there are no cookies. A page of a public origin may call a server in a private
    network (https://wicg.github.io/private-network-access/), since it was named on purpose.
    """
    return {
        "allow_origins": origins,
        "allow_methods": ["GET", "HEAD", "POST", "DELETE"],
        "allow_headers": [
            "Authorization",
            "Idempotency-Key",
            "If-None-Match",
            "Last-Event-ID",
            "Range",
            "X-Request-ID",
        ],
        "allow_private_network": True,
        "expose_headers": ["Location", "X-Request-ID", "ETag", "Content-Range"],
    }


def _mark(headers: MutableHeaders, path: str) -> None:
    for name, value in FIXED.items():
        headers.setdefault(name, value)
    headers.setdefault("Content-Security-Policy", DATA_POLICY)
    if path.startswith("/v1/"):
        # A file may be kept, but is asked for again: who reads it needs a key that still holds.
        kept = "private, no-cache" if "etag" in headers else "no-store"
        headers.setdefault("Cache-Control", kept)


def page_policy(html: bytes) -> str:
    """The Content-Security-Policy of a documentation page.

    Scripts: those of this server, and the inline ones that the page holds, by their SHA-256 (CSP
    Level 3, section 2.3.1). Styles cannot be named so: Swagger UI and ReDoc make theirs as they go.
    """
    hashes = " ".join(f"'sha256-{digest}'" for digest in _inline_scripts(html))
    return "; ".join(
        [
            "default-src 'none'",
            f"script-src 'self' {hashes}".rstrip(),
            "style-src 'self' 'unsafe-inline'",
            "img-src 'self' data:",
            "font-src 'self'",
            "connect-src 'self'",
            "worker-src blob:",  # ReDoc's search
            "base-uri 'none'",
            "form-action 'none'",
            "frame-ancestors 'none'",
        ]
    )


def _inline_scripts(html: bytes) -> list[str]:
    """The SHA-256 of each script that stands in the page itself, in base64."""
    found = _SCRIPT.findall(html)
    return [base64.b64encode(hashlib.sha256(text).digest()).decode() for text in found]

"""Response headers that restrict what a browser does with an answer."""

import base64
import hashlib
import re
from typing import Any

from starlette.datastructures import MutableHeaders
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from service.api.paths import PAGES

FIXED = {
    "X-Content-Type-Options": "nosniff",
    "X-Frame-Options": "DENY",
    "Referrer-Policy": "no-referrer",
    # Applies to requests without CORS only (an <img> on another site, say), so it does not affect
    # the origins of FAIRTUNE_CORS_ORIGINS.
    "Cross-Origin-Resource-Policy": "same-origin",
}
DATA_POLICY = "default-src 'none'; frame-ancestors 'none'"
"""For JSON, text and files: their content is neither executed nor framed nor loads anything."""

_SCRIPT = re.compile(rb"<script(?![^>]*\bsrc=)[^>]*>(.*?)</script>", re.DOTALL | re.IGNORECASE)


class SecurityHeaders:
    """Adds the headers that the answer does not set itself."""

    def __init__(self, app: ASGIApp) -> None:
        self.app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        path = scope["path"].removeprefix(scope.get("root_path", ""))
        start: Message | None = None
        page = bytearray()

        async def marked(message: Message) -> None:
            nonlocal start
            if message["type"] == "http.response.start":
                _mark(MutableHeaders(scope=message), path)
                if path in PAGES and message["status"] == 200:
                    start = message  # sent once the page's scripts are known
                    return
            elif start is not None and message["type"] == "http.response.body":
                page.extend(message.get("body", b""))
                if message.get("more_body", False):
                    return
                MutableHeaders(scope=start)["Content-Security-Policy"] = page_policy(bytes(page))
                await send(start)
                message = {"type": "http.response.body", "body": bytes(page)}
                start = None
            await send(message)

        await self.app(scope, receive, marked)


def cors(origins: list[str]) -> dict[str, Any]:
    """Return the arguments of Starlette's CORSMiddleware for pages of `origins`, which send a key.

    No credentials: there are no cookies. A page of a public origin may call a server in a private
    network (https://wicg.github.io/private-network-access/), since it is listed on purpose.
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
        # A file may be cached but is revalidated: reading it needs a key that is still valid.
        caching = "private, no-cache" if "etag" in headers else "no-store"
        headers.setdefault("Cache-Control", caching)


def page_policy(html: bytes) -> str:
    """Return the Content-Security-Policy of a documentation page.

    Scripts: those of this server, and the page's inline ones by their SHA-256 (CSP Level 3,
    section 2.3.1). Styles cannot be listed: Swagger UI and ReDoc create theirs dynamically.
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
    """Return the SHA-256 of each inline script of the page, in base64."""
    scripts = _SCRIPT.findall(html)
    return [base64.b64encode(hashlib.sha256(text).digest()).decode() for text in scripts]

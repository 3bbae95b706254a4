"""A page as PDF, printed by a Chromium of this machine."""

import os
import shutil
import subprocess
import tempfile
from pathlib import Path

from service.cli.errors import refuse

_NAMES = ("chromium", "google-chrome", "google-chrome-stable", "chromium-browser")
_SECONDS = 120


def write_pdf(page: str, output: Path) -> None:
    """Print an HTML page into a PDF file. Raises Exit, OSError."""
    browser = os.environ.get("CHROMIUM") or next(filter(None, map(shutil.which, _NAMES)), None)
    if browser is None:
        refuse(
            "PDF needs a Chromium, and there is none (CHROMIUM names one); write --format html and "
            "print it in a browser instead (Ctrl-P, Save as PDF)"
        )
    with tempfile.TemporaryDirectory(prefix="fairtune-pdf-") as folder:
        source, target = Path(folder) / "page.html", Path(folder) / "page.pdf"
        source.write_text(page, encoding="utf-8")
        # As root Chromium has no sandbox; the page is our own, and its policy loads nothing.
        sandbox = ["--no-sandbox"] if os.geteuid() == 0 else []
        command = [
            browser,
            "--headless",
            "--disable-gpu",
            *sandbox,
            f"--user-data-dir={folder}/profile",
            "--no-pdf-header-footer",
            f"--print-to-pdf={target}",
            source.as_uri(),
        ]
        try:
            ended = subprocess.run(  # noqa: S603 - a browser that the user names, no shell
                command, capture_output=True, timeout=_SECONDS, check=False
            )
        except (OSError, subprocess.TimeoutExpired) as error:
            refuse(f"{browser} printed no PDF ({error}); use --format html")
        if ended.returncode or not target.is_file():
            last = (ended.stderr.decode(errors="replace").strip().splitlines() or ["no message"])[
                -1
            ]
            refuse(f"{browser} printed no PDF ({last}); use --format html")
        shutil.copyfile(target, output)

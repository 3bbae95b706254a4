"""Write fairtune/_sync, the synchronous client, from fairtune/_async.

`python -m tools.sync_client` writes the files, `--check` compares them only: `make check` does so.
The two differ in words alone, so that every method is written once.
"""

import argparse
import re
import subprocess
import sys
from pathlib import Path

_PACKAGE = Path(__file__).parents[1] / "fairtune"
_REPLACEMENTS = [
    (r"\basync (def|for|with)\b", r"\1"),
    (r"\bawait ", ""),
    (r"\bAsyncIterator\b", "Iterator"),
    (r"\bAsync([A-Z]\w*)", r"\1"),
    (r"__a(enter|exit)__", r"__\1__"),
    (r"\ba(close|read)\b", r"\1"),
    (r"\baiter_(lines|bytes)\b", r"iter_\1"),
    (r"\bfairtune\._async\b", "fairtune._sync"),
    (r"\banyio\.sleep\b", "time.sleep"),
    (r"\banyio\.current_time\b", "time.monotonic"),
    (r"\banyio\.Path\b", "Path"),
    (r"^import anyio$", "import time"),
]


def synchronous(text: str) -> str:
    """Return the synchronous form of a module."""
    for pattern, replacement in _REPLACEMENTS:
        text = re.sub(pattern, replacement, text, flags=re.MULTILINE)
    note = "Generated from fairtune/_async by tools/sync_client.py; do not edit."
    first, _, remainder = text.partition('"""\n')
    return _formatted(f'{first}\n\n{note}\n"""\n{remainder}')


def _formatted(text: str) -> str:
    ruff = str(Path(sys.executable).with_name("ruff"))
    for arguments in (["check", "--select", "I,F401", "--fix-only", "--quiet"], ["format"]):
        command = [ruff, *arguments, "--stdin-filename", str(_PACKAGE / "_sync" / "module.py"), "-"]
        result = subprocess.run(command, input=text, capture_output=True, text=True, check=True)
        text = result.stdout
    return text


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--check", action="store_true", help="compare only")
    is_check = parser.parse_args().check
    sources = {file.name: file for file in (_PACKAGE / "_async").glob("*.py")}
    target = _PACKAGE / "_sync"
    stale = [file for file in target.glob("*.py") if file.name not in sources]
    for name, source in sources.items():
        text = synchronous(source.read_text())
        if name == "__init__.py":
            text = '"""The synchronous client, generated from fairtune/_async; do not edit."""\n'
        file = target / name
        if is_check and (not file.exists() or file.read_text() != text):
            stale.append(file)
        elif not is_check:
            target.mkdir(exist_ok=True)
            file.write_text(text)
    if is_check and stale:
        names = ", ".join(str(file.relative_to(_PACKAGE.parent)) for file in stale)
        print(f"{names} differ from fairtune/_async: python -m tools.sync_client")
        return 1
    for file in stale:
        file.unlink()
    return 0


if __name__ == "__main__":
    sys.exit(main())

"""Every guard is shown to matter: a test goes red without it.

Each guard (guards_of_jobs.py and the like) is a text; it says what stands in its place in a
copy of the tree, and names tests, each of which must then fail. Before that all of them must pass
in the copy as it is.

python -m tests.faults.guards [NAME …]

Exits with 1 where a guard could be taken away unnoticed.
"""

import subprocess
import sys
import tempfile
from collections.abc import Iterable
from pathlib import Path

from tests.faults import guards_of_files, guards_of_jobs, guards_of_removal
from tests.faults.guard import Guard
from tests.faults.report import RESULTS
from tests.support.pages import table, write

ROOT = Path(__file__).parents[2]
SECONDS = 600

GUARDS = (*guards_of_jobs.GUARDS, *guards_of_files.GUARDS, *guards_of_removal.GUARDS)


class Copy:
    """A copy of the tree, tests included, in which a guard can be taken away."""

    def __init__(self, root: Path) -> None:
        self.root = root
        listed = ["git", "ls-files", "--cached", "--others", "--exclude-standard", "-z"]
        names = subprocess.run(listed, cwd=ROOT, capture_output=True, text=True, check=True).stdout
        for name in filter(None, names.split("\0")):
            source, target = ROOT / name, root / name
            if source.is_file():
                target.parent.mkdir(parents=True, exist_ok=True)
                target.write_bytes(source.read_bytes())

    def run(self, tests: Iterable[str]) -> tuple[bool, str]:
        """Whether the tests pass, and what pytest says. The copy comes first on the path."""
        command = [sys.executable, "-m", "pytest", "--faults", "all", "--tb=line"]
        try:
            done = subprocess.run(
                [*command, *tests],
                cwd=self.root,
                capture_output=True,
                text=True,
                check=False,
                timeout=SECONDS * 3,
            )
        except subprocess.TimeoutExpired:
            return False, "it did not come to an end"
        # 1 is a test that failed; everything else says that none was run as it should have been.
        if done.returncode not in (0, 1):
            raise SystemExit(
                f"pytest could not run the tests:\n{done.stdout[-2000:]}{done.stderr[-2000:]}"
            )
        return done.returncode == 0, done.stdout[-3000:]

    def without(self, guard: Guard) -> list[str]:
        """Take the guard away, and name those of its tests that pass all the same."""
        path = self.root / guard.file
        text = path.read_text()
        if text.count(guard.old) != 1:
            raise SystemExit(f"{guard.file} does not hold the guard {guard.name!r} exactly once")
        path.write_text(text.replace(guard.old, guard.new))
        try:
            return [test for test in guard.tests if self.run([test])[0]]
        finally:
            path.write_text(text)


def note(red: dict[str, bool]) -> None:
    """Put into the page which guards turned a test red; of the others it stays what it said."""
    path = RESULTS / "guards.md"
    lines = [line for line in path.read_text().splitlines() if line.startswith("| ")]
    cells = [line.strip("| ").split(" | ") for line in lines[2:]]
    known = {name: answer for name, *_, answer in cells}
    known |= {name: "yes" if is_red else "no" for name, is_red in red.items()}
    rows = []
    for guard in GUARDS:
        tests = "<br>".join(f"`{test.partition('::')[2]}`" for test in guard.tests)
        rows.append([guard.name, f"`{guard.file}`", tests, known.get(guard.name, "not tried")])
    text = table(["guard", "in", "tests that need it", "red without it"], rows)
    write(path, "Guards: the tests that fail without each", "make guards", text)


def main(wanted: list[str]) -> int:
    chosen = [guard for guard in GUARDS if not wanted or any(name in guard.name for name in wanted)]
    red = {}
    with tempfile.TemporaryDirectory(prefix="fairtune-guards-") as folder:
        copy = Copy(Path(folder))
        every = dict.fromkeys(test for guard in chosen for test in guard.tests)
        passed, said = copy.run(every)
        if not passed:
            print(f"The tests do not pass as things are:\n{said}")
            return 1
        for guard in chosen:
            green = copy.without(guard)
            red[guard.name] = not green
            print(f"{'UNNOTICED' if green else 'noticed'}: without {guard.name!r}", *green)
    note(red)
    return int(not all(red.values()))


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))

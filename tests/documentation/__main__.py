"""Run the commands of README and docs, and list those that are not run, with the reason.

`python -m tests.documentation [PAGE ...] [--fresh]`; the exit code is 1 where one fails.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
import time
from pathlib import Path

from tests.documentation.environments import Current, Environments, Fresh
from tests.documentation.pages import CHECKED, ROOT, all_pages, read_page
from tests.documentation.running import BlockError, PageRun, make_materials, run_page


def main() -> int:
    """Run the pages that are asked for."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("pages", nargs="*", type=Path, help="pages (default: all)")
    parser.add_argument(
        "--fresh", action="store_true", help="make an environment for each set of extras, by uv"
    )
    asked = parser.parse_args()
    environments: Environments = Fresh() if asked.fresh else Current()
    failed = 0
    not_run: list[str] = []
    with tempfile.TemporaryDirectory() as scratch:
        materials = make_materials(Path(scratch))
        for number, page in enumerate(map(Path.resolve, asked.pages or all_pages())):
            folder = Path(scratch) / str(number)
            folder.mkdir()
            failed += not _run(page, folder, environments, materials, not_run)
    print("\nNot run:" if not_run else "\nAll were run.")
    print(*not_run, sep="\n")
    return 1 if failed else 0


def _run(
    page: Path,
    folder: Path,
    environments: Environments,
    materials: dict[str, Path],
    not_run: list[str],
) -> bool:
    """Whether a page's blocks do what it says; what is not run is added to a list."""
    started = time.monotonic()
    blocks = read_page(page)
    wanted = [b for b in blocks if b.language in CHECKED and b.file is None]
    not_run += [
        f"{b.place}: {b.reason or f'{b.language} needs Windows'}" for b in wanted if not b.runs
    ]
    try:
        with PageRun(folder, environments, materials) as run:
            not_run += run_page(run, blocks)
    except BlockError as error:
        print(f"FAILED {error}", flush=True)
        return False
    count = sum(b.runs for b in blocks)
    print(
        f"{page.relative_to(ROOT)}: {count} blocks, {time.monotonic() - started:.0f} s", flush=True
    )
    return True


if __name__ == "__main__":
    sys.exit(main())

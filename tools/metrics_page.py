"""The table of docs/metrics.md, written from the figures themselves; what stands outside of its marks is written by hand.

.venv/bin/python tools/metrics_page.py
"""

import sys
from collections.abc import Iterator
from pathlib import Path

from vllama.api.metrics.figures import GROUPS

PAGE = Path(__file__).resolve().parent.parent / "docs" / "metrics.md"
BEGIN, END = "<!-- figures: written by tools/metrics_page.py -->", "<!-- end of figures -->"


def main() -> int:
    PAGE.write_text(page(), encoding="utf-8")
    print(f"wrote {PAGE}")
    return 0


def page() -> str:
    """The page as it is, with the tables of now."""
    before, _, rest = PAGE.read_text(encoding="utf-8").partition(BEGIN)
    _, _, after = rest.partition(END)
    return before + BEGIN + "\n" + "\n".join(_tables()) + "\n" + END + after


def _tables() -> Iterator[str]:
    for title, figures in GROUPS.items():
        yield f"\n### {title}\n\n| metric | kind | labels | what it says |\n|---|---|---|---|"
        for figure in figures:
            labels = ", ".join(f"`{label}`" for label in figure.labels) or "-"
            yield f"| `{figure.name}` | {figure.kind} | {labels} | {figure.help} |"


if __name__ == "__main__":
    sys.exit(main())

"""What the pages quote of an engine's log is what the vLLM that is installed says."""

import importlib.util
import re
from pathlib import Path

PAGE = Path(__file__).resolve().parents[2] / "docs" / "troubleshooting.md"
# Of others: torch, the C compiler.
NOT_OF_VLLM = {"CUDA out of memory", "No such file ... cc", "Python.h"}
APART_MAX = 400  # characters between two parts of one message, in its source


def quoted() -> set[str]:
    """What an engine's log says, by the page: what a table is headed so for, and what the engine `says` in a list."""
    text = re.sub(r"\s*\n\s+", " ", PAGE.read_text(encoding="utf-8"))
    table = (
        PAGE.read_text(encoding="utf-8")
        .partition("| the log says | do |\n|---|---|\n")[2]
        .partition("\n\n")[0]
    )
    cells = [row.split("|")[1] for row in table.splitlines()]
    said = re.findall(r"It says ([^.]*?`[^`]*`(?:, or `[^`]*`)?)", text)
    return {quote for each in (*cells, *said) for quote in re.findall("`([^`]+)`", each)}


def test_each_message_of_vllms_that_a_page_quotes_is_one_that_it_has():
    assert quoted() >= NOT_OF_VLLM
    wanted = {
        quote: re.compile(f".{{0,{APART_MAX}}}?".join(map(re.escape, quote.split(" ... "))), re.DOTALL)
        for quote in quoted() - NOT_OF_VLLM
    }
    assert len(wanted) >= 3
    spec = importlib.util.find_spec("vllm")
    assert spec is not None
    assert spec.origin is not None
    for file in sorted(Path(spec.origin).parent.rglob("*.py")):
        # A message stands over several lines, in pieces.
        text = re.sub(r'"\s*\n\s*f?"', "", file.read_text(encoding="utf-8"))
        wanted = {quote: regex for quote, regex in wanted.items() if not regex.search(text)}
    assert list(wanted) == []

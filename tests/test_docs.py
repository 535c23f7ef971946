"""The pages: their links lead somewhere, what is generated is up to date, what they name is there."""

import re
import subprocess
from collections.abc import Iterator
from functools import cache
from pathlib import Path

import configuration
import metrics_page
import pytest
import yaml
from starlette.routing import BaseRoute

from vllama import errors
from vllama.actors import System
from vllama.api.app import create_app
from vllama.config import VllamaConfig

ROOT = Path(__file__).resolve().parent.parent
LINK = re.compile(r"!?\[[^\]]*\]\(([^)\s]+)(?:\s+\"[^\"]*\")?\)")
FENCE = re.compile(r"^(```|~~~).*?^\1", re.MULTILINE | re.DOTALL)
CODE = re.compile(r"`[^`\n]*`")
HEADING = re.compile(r"^#{1,6}\s+(.*?)\s*#*\s*$", re.MULTILINE)


@cache
def pages() -> tuple[Path, ...]:
    """Every page that git knows, or would."""
    command = ["git", "ls-files", "--cached", "--others", "--exclude-standard", "*.md"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False, timeout=60)
    found = [ROOT / name for name in done.stdout.splitlines()] or [
        *ROOT.glob("*.md"),
        *ROOT.glob("d*/**/*.md"),
    ]
    return tuple(page for page in found if page.exists())


def anchors(page: Path) -> set[str]:
    """The anchors of a page's headings, as GitHub makes them."""
    seen: dict[str, int] = {}
    found = set()
    for title in HEADING.findall(FENCE.sub("", page.read_text(encoding="utf-8"))):
        words = re.sub(r"!?\[([^\]]*)\]\([^)]*\)", r"\1", title).replace("`", "").strip().lower()
        slug = re.sub(r"[^\w\- ]", "", words).replace(" ", "-")
        count = seen.get(slug, 0)
        seen[slug] = count + 1
        found.add(f"{slug}-{count}" if count else slug)
    return found


def broken(page: Path) -> Iterator[str]:
    """The links of a page that lead nowhere. Those to other hosts are not followed."""
    text = CODE.sub("", FENCE.sub("", page.read_text(encoding="utf-8")))
    for link in LINK.findall(text):
        if re.match(r"[a-z][a-z0-9+.-]*:", link):
            continue
        path, _, anchor = link.partition("#")
        target = (page.parent / path).resolve() if path else page
        if not target.exists():
            yield f"{link}: no such file"
        elif not target.is_relative_to(ROOT):
            yield f"{link}: leads out of the repository"
        elif anchor and target.suffix == ".md" and anchor not in anchors(target):
            yield f"{link}: no such heading"


@pytest.mark.parametrize("page", pages(), ids=lambda page: page.relative_to(ROOT).as_posix())
def test_links_lead_somewhere(page: Path) -> None:
    assert list(broken(page)) == []


def test_a_broken_link_is_seen(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(globals(), "ROOT", tmp_path)
    page = tmp_path / "page.md"
    page.write_text(
        "# A `title`, twice\n# A title, twice\n[a](none.md) [b](page.md#a-title-twice-1) [c](#a-title-thrice) `[d](e)`\n"
    )
    assert list(broken(page)) == ["none.md: no such file", "#a-title-thrice: no such heading"]


@pytest.mark.parametrize("tool", [configuration, metrics_page], ids=lambda tool: tool.__name__)
def test_what_is_generated_is_up_to_date(tool) -> None:
    written = tool.PAGE.read_text(encoding="utf-8")
    assert written == tool.page(), f"run .venv/bin/python tools/{tool.__name__}.py"


def test_comments_beside_fields_are_words() -> None:
    words = configuration.comments_of(configuration.VllamaConfig)
    assert words["api_key_file"] == "one key a line"
    assert "host" not in words


def paths(routes: list[BaseRoute]) -> Iterator[str]:
    for route in routes:
        if path := getattr(route, "path", ""):
            yield re.sub(r":path}", "}", path)


def test_the_api_page_has_every_route_and_every_error() -> None:
    page = (ROOT / "docs" / "api.md").read_text(encoding="utf-8")
    app = create_app(System(VllamaConfig(), None))
    served = set(paths(app.router.routes))
    assert len(served) > 40
    short = {path for path in served if "/" + path.rpartition("/")[2] in re.findall(r"`\.\.\.(/\w+)`", page)}
    assert {path for path in served - short if path not in page and not path.startswith("/ui")} == set()
    codes = {
        cls.code
        for cls in vars(errors).values()
        if isinstance(cls, type) and issubclass(cls, errors.VllamaError)
    }
    assert {code for code in codes if f"`{code}`" not in page} == set()


BLOCK = re.compile(r"^```(yaml|python)\n(.*?)^```", re.MULTILINE | re.DOTALL)


@pytest.mark.parametrize(
    "page", [*ROOT.glob("README*.md"), *ROOT.glob("docs/*.md")], ids=lambda page: page.name
)
def test_what_is_shown_to_be_copied_can_be_read(page: Path) -> None:
    for kind, text in BLOCK.findall(page.read_text(encoding="utf-8")):
        if kind == "yaml":
            assert isinstance(yaml.safe_load(text), dict), text
        else:
            compile(text, str(page), "exec")


def test_continues_configuration_has_what_its_schema_requires() -> None:
    """As @continuedev/config-yaml has it; without these it refuses the whole file."""
    page = (ROOT / "docs" / "clients.md").read_text(encoding="utf-8")
    trees = [yaml.safe_load(text) for kind, text in BLOCK.findall(page) if kind == "yaml"]
    (tree,) = [tree for tree in trees if "models" in tree]
    assert isinstance(tree["name"], str)
    assert isinstance(tree["version"], str)
    assert [each for each in tree["models"] if not {"name", "provider", "model"} <= each.keys()] == []


def skeleton(page: Path) -> list[str]:
    """What two languages of one page share: the levels of headings, the commands, the links, the shape of tables."""
    text = page.read_text(encoding="utf-8")
    fenced = "\n".join(match.group() for match in FENCE.finditer(text))
    commands = [
        re.sub(r"\s*#.*", "", line)
        for line in fenced.splitlines()
        if re.match(r"(vllama|make|pip|curl) ", line)
    ]
    headings = re.findall(r"^#+", text, re.MULTILINE)
    links = [link for link in LINK.findall(text) if not link.startswith("README")]
    rows = [str(line.count("|")) for line in text.splitlines() if line.startswith("|")]
    return [*headings, *commands, *sorted(links), *rows]


def test_the_readme_says_the_same_in_chinese_and_fits_on_two_screens() -> None:
    english, chinese = ROOT / "README.md", ROOT / "README.zh-CN.md"
    assert skeleton(chinese) == skeleton(english)
    for page in (english, chinese):
        assert len(page.read_text(encoding="utf-8").splitlines()) <= 110

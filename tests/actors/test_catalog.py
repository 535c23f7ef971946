"""The catalog: what was read last is what is answered, whatever the cache or the file is doing now."""

import asyncio
from collections.abc import Mapping
from pathlib import Path

from vllama.actors.catalog import Catalog
from vllama.config import ModelConfig, load_config
from vllama.host.host import ModelFiles

BOUND_S = 10.0


def files(model: str, revision: str = "r1") -> ModelFiles:
    return ModelFiles(model, f"/hub/{model}", revision, "chat", "X", 1, 1, {}, 0.0)


class SlowHost:
    """A machine whose cache is read when it is let."""

    def __init__(self, *models: ModelFiles) -> None:
        self.found = models
        self.scans = 0
        self.revisions: dict[str, str] = {}  # asked for last
        self.may_read = asyncio.Event()
        self.may_read.set()
        self.reading = asyncio.Event()

    async def models(self, revisions: Mapping[str, str]) -> tuple[ModelFiles, ...]:
        self.reading.set()
        await self.may_read.wait()
        self.scans += 1
        self.revisions = dict(revisions)
        return self.found


class Heard:
    def __init__(self) -> None:
        self.changed: list[frozenset[str]] = []
        self.problems: list[str] = []


def catalog(host: SlowHost, folder: Path) -> tuple[Catalog, Heard]:
    heard = Heard()
    config = load_config({"config_dir": folder}, {})
    made = Catalog(host, config, {}, heard.changed.append, heard.problems.append)  # type: ignore[arg-type]
    return made, heard


def test_names_and_models_are_there_while_a_scan_hangs(tmp_path: Path) -> None:
    async def story() -> None:
        host = SlowHost(files("a/b"))
        known, _ = catalog(host, tmp_path)
        await known.ready()
        host.may_read.clear()
        host.reading.clear()
        async with asyncio.timeout(BOUND_S), asyncio.TaskGroup() as group:
            scan = group.create_task(known.refresh())
            await host.reading.wait()
            assert known.names.find("B") is not None
            await known.ready()
            assert [model.id for model in known.models] == ["a/b"]
            assert not scan.done()
            host.may_read.set()

    asyncio.run(story())


def test_who_comes_while_a_scan_runs_shares_the_next_one(tmp_path: Path) -> None:
    async def story() -> None:
        host = SlowHost()
        host.may_read.clear()
        known, _ = catalog(host, tmp_path)
        async with asyncio.timeout(BOUND_S), asyncio.TaskGroup() as group:
            group.create_task(known.refresh())
            await host.reading.wait()
            host.found = (files("a/b"),)
            late = [group.create_task(known.refresh()) for _ in range(10)]
            host.may_read.set()
        assert all(task.done() for task in late)
        assert host.scans == 2
        assert known.names.ids == ("a/b",)

    asyncio.run(story())


def test_only_what_has_changed_is_told(tmp_path: Path) -> None:
    async def story() -> None:
        host = SlowHost(files("a/b"), files("c/d"))
        known, heard = catalog(host, tmp_path)
        path = tmp_path / "models.yaml"
        await known.ready()
        path.write_text("a/b: {pinned: true}\nc/d: {dtype: auto}\n")
        await known.reload()
        await known.reload()
        assert heard.changed == [frozenset(), frozenset({"a/b"})]  # c/d says what holds anyway
        path.write_text("# only a comment more\na/b: {pinned: true}\nc/d: {dtype: auto}\n")
        await known.reload()
        assert len(heard.changed) == 2
        host.found = (files("a/b"), files("c/d", "r2"))
        await known.refresh()
        assert heard.changed[2:] == [frozenset({"c/d"})]

    asyncio.run(story())


def test_another_revision_is_looked_for_at_once(tmp_path: Path) -> None:
    async def story() -> None:
        host = SlowHost(files("a/b"))
        known, heard = catalog(host, tmp_path)
        path = tmp_path / "models.yaml"
        await known.ready()
        host.found = (files("a/b", "r2"),)
        path.write_text("a/b: {revision: dev}\n")
        await known.reload()
        assert host.revisions == {"a/b": "dev"}
        assert known.files["a/b"].revision == "r2"
        assert heard.changed[-1] == frozenset({"a/b"})
        path.write_text("a/b: {revision: dev, pinned: true}\n")
        await known.reload()
        assert host.scans == 2
        path.write_text("a/b: {pinned: true}\n")
        await known.reload()
        assert host.revisions == {}

    asyncio.run(story())


def test_a_file_that_goes_wrong_changes_nothing_and_is_told_once(tmp_path: Path) -> None:
    async def story() -> None:
        known, heard = catalog(SlowHost(files("a/b")), tmp_path)
        path = tmp_path / "models.yaml"
        path.write_text("a/b: {pinned: true}\n")
        await known.reload()
        for broken in ("a/b: {pinned: 7}\n", "a/b: [\n"):
            path.write_text(broken)
            await known.reload()
            await known.reload()
            assert known.of("a/b") == ModelConfig(pinned=True)
        assert [problem.startswith(f"{path}:") for problem in heard.problems] == [True, True]
        path.write_text("a/b: {pinned: true}\n\n")
        await known.reload()
        assert heard.problems[2:] == [""]
        assert known.problem == ""
        path.unlink()
        await known.reload()
        assert known.of("a/b") == ModelConfig()

    asyncio.run(story())

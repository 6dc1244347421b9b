"""`write_file`: seen as a whole when the call is certain, and nothing before."""

from __future__ import annotations

import asyncio
import os
import socket
import stat
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from agentflow.errors import ArgumentError
from agentflow.tools.builtin import file_tools
from agentflow.tools.builtin.files_write import MAX_WRITE, Draft, WriteFailed, Written
from agentflow.tools.builtin.root import DRAFT, PathNotFound, PathRefused, Root
from agentflow.tools.builtin.threads import settled
from agentflow.tools.streaming import Commit, TextBuffer, TextStream


@pytest.fixture
def tool(folder: Path) -> Any:
    return file_tools(folder, write=True)[3]


class Asked(Commit):
    """Tells when the tool waits for it."""

    def __init__(self, certain: asyncio.Future[None]) -> None:
        super().__init__(certain)
        self.waiting = asyncio.Event()

    async def __call__(self) -> None:
        self.waiting.set()
        await super().__call__()


class Writing:
    """A call that is being written: what there is of it, until it is certain or retracted."""

    def __init__(self, tool: Any, path: str) -> None:
        self.text = TextBuffer()
        self.certain: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self.asked = Asked(self.certain)
        self.task: asyncio.Task[Written] = asyncio.ensure_future(
            tool.fn(path, TextStream(self.text), commit=self.asked)
        )

    async def end(self) -> None:
        """The text is complete, and the tool waits to be told that the call is certain."""
        self.text.end()
        await asyncio.wait_for(self.asked.waiting.wait(), 5)

    async def commit(self) -> Written:
        await self.end()
        self.certain.set_result(None)
        return await self.task

    async def retract(self) -> None:
        self.task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await self.task


async def drafts_in(folder: Path, count: int = 1) -> list[Path]:
    """The drafts in a folder, once there are so many."""
    async with asyncio.timeout(5):
        while len(found := [p for p in folder.iterdir() if DRAFT.fullmatch(p.name)]) < count:
            await asyncio.sleep(0)
    return found


def snapshot(folder: Path) -> dict[str, bytes | None]:
    return {
        str(path.relative_to(folder)): path.read_bytes() if path.is_file() else None
        for path in folder.rglob("*")
    }


@pytest.fixture
def descriptors() -> Iterator[None]:
    """No descriptor is left open."""
    before = len(os.listdir("/dev/fd"))
    yield
    assert len(os.listdir("/dev/fd")) == before


def test_it_is_there_only_if_asked_for_and_says_what_it_does(folder: Path) -> None:
    assert "write_file" not in [tool.name for tool in file_tools(folder)]
    tool = file_tools(folder, write=True)[3]
    assert (tool.name, str(tool.effect)) == ("write_file", "writes(files/{path}), idempotent")
    assert [parameter.name for parameter in tool.spec.parameters] == ["path", "text"]
    assert tool.spec.schema()["properties"]["text"] == {"type": "string"}


async def test_a_plain_call_writes_the_file(folder: Path, tool: Any) -> None:
    assert await tool("src/new.txt", "héllo\nworld") == Written("src/new.txt", 12, 2, created=True)
    assert (folder / "src/new.txt").read_bytes() == "héllo\nworld".encode()


@pytest.mark.parametrize(
    ("text", "lines"), [("", 0), ("a", 1), ("a\n", 1), ("a\nb", 2), ("\n\n", 2), ("a\r\nb", 2)]
)
async def test_lines_are_counted_as_read_file_counts_them(
    folder: Path, text: str, lines: int
) -> None:
    read_file, _, _, write_file = file_tools(folder, write=True)

    written = await write_file("file", text)

    assert (written.lines, written.bytes) == (lines, len(text))
    assert (await read_file("file")).total == lines


# Before and after the commit


async def test_nothing_is_seen_before_the_commit_and_all_of_it_after(
    folder: Path, tool: Any, descriptors: None
) -> None:
    before = snapshot(folder)
    call = Writing(tool, "src/main.py")
    for _ in range(3):
        call.text.add("x" * 50_000)
        await drafts_in(folder / "src")
    await call.end()
    [draft] = await drafts_in(folder / "src")
    assert stat.S_IMODE(draft.stat().st_mode) == 0o600
    during = snapshot(folder)
    del during[str(draft.relative_to(folder))]
    assert during == before

    assert await call.commit() == Written("src/main.py", 150_000, 1, created=False)

    before["src/main.py"] = b"x" * 150_000
    assert snapshot(folder) == before


async def test_the_text_goes_to_the_disk_while_it_comes(folder: Path, tool: Any) -> None:
    call = Writing(tool, "big.txt")
    [draft] = await drafts_in(folder)
    call.text.add("x" * 200_000)
    async with asyncio.timeout(5):
        while draft.stat().st_size < 200_000:
            await asyncio.sleep(0)

    await call.retract()


@pytest.mark.parametrize("ended", [False, True])
async def test_nothing_is_left_of_a_call_that_is_retracted(
    folder: Path, tool: Any, ended: bool, descriptors: None
) -> None:
    before = snapshot(folder)
    call = Writing(tool, "a/b/c.txt")
    call.text.add("x" * 100_000)
    await drafts_in(folder)
    if ended:
        await call.end()

    await call.retract()

    assert snapshot(folder) == before


async def test_nothing_is_left_of_a_call_that_is_retracted_at_its_first_step(
    folder: Path, tool: Any, descriptors: None
) -> None:
    before = snapshot(folder)
    for steps in range(6):
        call = Writing(tool, "new.txt")
        for _ in range(steps):
            await asyncio.sleep(0)
        await call.retract()

        assert snapshot(folder) == before


async def test_folders_that_are_missing_are_made_at_the_commit(folder: Path, tool: Any) -> None:
    call = Writing(tool, "src/a/b/c.txt")
    await drafts_in(folder / "src")
    assert not (folder / "src" / "a").exists()

    assert (await call.commit()).path == "src/a/b/c.txt"

    assert (folder / "src/a/b/c.txt").read_bytes() == b""


async def test_two_calls_into_one_new_folder_do_not_disturb_each_other(
    folder: Path, tool: Any
) -> None:
    calls = [Writing(tool, f"new/{name}.txt") for name in "abc"]
    await drafts_in(folder, 3)

    await asyncio.gather(*(call.commit() for call in calls))

    assert sorted(path.name for path in (folder / "new").iterdir()) == ["a.txt", "b.txt", "c.txt"]


async def test_drafts_are_not_listed_and_not_searched(folder: Path) -> None:
    _, list_files, search_text, write_file = file_tools(folder, write=True)
    before = await list_files()
    call = Writing(write_file, "new.txt")
    call.text.add("needle " * 20_000)
    await drafts_in(folder)

    assert await list_files() == before
    assert await search_text("needle") == []

    await call.retract()


async def test_what_counts_is_the_folder_as_it_is_at_the_commit(folder: Path, tool: Any) -> None:
    call = Writing(tool, "src/deep/new.txt")
    await drafts_in(folder / "src" / "deep")
    (folder / "src" / "deep").rename(folder / "moved")
    (folder / "src" / "deep").mkdir()

    await call.commit()

    assert (folder / "src/deep/new.txt").exists()
    assert [path.name for path in (folder / "moved").iterdir()] == ["notes.txt"]


async def test_what_is_in_the_way_before_the_commit_may_be_gone_at_it(
    folder: Path, tool: Any, descriptors: None
) -> None:
    (folder / "a").write_text("a file")
    call = Writing(tool, "a/b.txt")
    call.text.add("x" * 100_000)
    await call.end()
    (folder / "a").unlink()

    assert (await call.commit()).created

    assert (folder / "a/b.txt").stat().st_size == 100_000


async def test_a_draft_that_cannot_be_begun_is_begun_at_the_commit(
    folder: Path, tool: Any, monkeypatch: pytest.MonkeyPatch, descriptors: None
) -> None:
    def locked(path: str, flags: int, mode: int = 0o777, *, dir_fd: int | None = None) -> int:
        if flags & os.O_EXCL:
            raise PermissionError(13, "Permission denied")
        return real(path, flags, mode, dir_fd=dir_fd)

    real = os.open
    monkeypatch.setattr(os, "open", locked)
    call = Writing(tool, "new.txt")
    call.text.add("x" * 100_000)
    await call.end()
    monkeypatch.setattr(os, "open", real)

    assert (await call.commit()).bytes == 100_000


async def test_an_error_is_told_at_the_commit_and_leaves_nothing(
    folder: Path, tool: Any, descriptors: None
) -> None:
    before = snapshot(folder)
    call = Writing(tool, "README.md/x")
    call.text.add("text")

    with pytest.raises(PathRefused, match="is a file, not a folder"):
        await call.commit()

    assert snapshot(folder) == before


async def test_folders_made_in_vain_are_taken_back(
    folder: Path, tool: Any, monkeypatch: pytest.MonkeyPatch, descriptors: None
) -> None:
    before = snapshot(folder)

    def full(*_: Any, **__: Any) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "rename", full)
    with pytest.raises(WriteFailed, match=r"'a/b/c\.txt' could not be written: No space left"):
        await tool("a/b/c.txt", "text")

    assert snapshot(folder) == before


# Where it may write


@pytest.mark.parametrize(
    "path",
    [
        *("/etc/x", "../x", "./../x", "src/../../x", "", ".", "..", "src/", "new/", "new/.", "src"),
        *("src/..", "bad\0name", "\ud800", "README.md/x", "missing/../x", "x" * 300),
    ],
)
async def test_paths_that_are_no_file_within_the_root_are_refused(
    folder: Path, tool: Any, path: str
) -> None:
    before = snapshot(folder.parent)

    with pytest.raises((PathRefused, PathNotFound, WriteFailed)):
        await tool(path, "text")

    assert snapshot(folder.parent) == before


@pytest.mark.parametrize("path", ["/etc/x", "../x", "src/", ".", "", "bad\0name", "\ud800"])
def test_a_path_that_can_never_be_right_is_refused_before_the_text_comes(
    tool: Any, path: str
) -> None:
    with pytest.raises(ArgumentError):
        tool.signature.argument("path", path)


@pytest.mark.parametrize("path", ["a", "a/../b", "a/..b", "..a", ".a", "./a", "a/./b", "a//b"])
def test_any_other_path_is_not(tool: Any, path: str) -> None:
    assert tool.signature.argument("path", path) == path


@pytest.mark.parametrize("target", ["../secret.txt", "../new.txt", "/etc/passwd", "loop"])
async def test_a_link_that_leads_out_is_not_followed(folder: Path, tool: Any, target: str) -> None:
    (folder / "loop").symlink_to("loop")
    (folder / "link").symlink_to(target)
    (folder / "out").symlink_to("..")
    before = snapshot(folder.parent)

    for path in ("link", "out/new.txt", "out/secret.txt"):
        with pytest.raises(PathRefused):
            await tool(path, "text")

    assert snapshot(folder.parent) == before


@pytest.mark.parametrize("target", ["src/main.py", "src/not_yet.py"])
async def test_a_link_within_the_root_is_written_through(
    folder: Path, tool: Any, target: str
) -> None:
    (folder / "link").symlink_to(target)

    written = await tool("link", "text")

    assert (written.path, written.created) == (target, target != "src/main.py")
    assert (folder / "link").is_symlink()
    assert (folder / target).read_text() == "text"


async def test_a_folder_swapped_for_a_link_is_not_followed(folder: Path, tool: Any) -> None:
    outside = folder.parent / "outside"
    outside.mkdir()
    call = Writing(tool, "src/deep/new.txt")
    await drafts_in(folder / "src" / "deep")
    (folder / "src" / "deep").rename(folder / "moved")
    (folder / "src" / "deep").symlink_to(outside)

    with pytest.raises(PathRefused):
        await call.commit()

    assert list(outside.iterdir()) == []
    assert [path.name for path in (folder / "moved").iterdir()] == ["notes.txt"]


def test_a_folder_that_appears_as_a_link_while_it_is_made_is_not_followed(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    outside = folder.parent / "outside"
    outside.mkdir()

    def beaten(name: str, *, dir_fd: int) -> None:
        os.symlink("../outside", name, dir_fd=dir_fd)
        raise FileExistsError

    monkeypatch.setattr(os, "mkdir", beaten)
    draft = Draft(Root(folder), "new/file.txt")
    draft.begin()
    with pytest.raises(WriteFailed):
        draft.publish(b"text")
    draft.discard()

    assert list(outside.iterdir()) == []


async def test_what_is_no_regular_file_is_not_replaced(folder: Path, tool: Any) -> None:
    os.mkfifo(folder / "fifo")
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(os.path.relpath(folder / "socket"))
        for path in ("fifo", "socket", "src"):
            with pytest.raises(PathRefused):
                await tool(path, "text")

    assert stat.S_ISFIFO((folder / "fifo").lstat().st_mode)


async def test_a_file_that_nobody_may_write_to_is_not_replaced(folder: Path, tool: Any) -> None:
    (folder / "README.md").chmod(0o444)

    with pytest.raises(PathRefused, match=r"'README\.md' is read-only"):
        await tool("README.md", "text")

    assert (folder / "README.md").read_text().startswith("# Title")


async def test_a_file_keeps_its_mode_and_a_new_one_gets_the_usual(folder: Path, tool: Any) -> None:
    (folder / "README.md").chmod(0o751)
    (folder / "usual").touch()

    await tool("README.md", "text")
    await tool("new.txt", "text")

    modes = [stat.S_IMODE((folder / name).stat().st_mode) for name in ("README.md", "new.txt")]
    assert modes == [0o751, stat.S_IMODE((folder / "usual").stat().st_mode)]


async def test_a_file_does_not_keep_whose_rights_it_ran_with(folder: Path, tool: Any) -> None:
    (folder / "README.md").chmod(0o6755)

    await tool("README.md", "text")

    assert stat.S_IMODE((folder / "README.md").stat().st_mode) == 0o755


@pytest.mark.parametrize("path", ["{}", "src/{}", "{}/a.txt", "latest/{}"])
async def test_a_name_that_only_drafts_have_is_refused(folder: Path, tool: Any, path: str) -> None:
    before = snapshot(folder)

    with pytest.raises(PathRefused, match="files of that name are drafts"):
        await tool(path.format(".agentflow-0123456789abcdef.part"), "text")

    assert snapshot(folder) == before


# What may be written


async def test_a_text_that_is_too_long_is_refused_while_it_comes(
    folder: Path, tool: Any, descriptors: None
) -> None:
    before = snapshot(folder)
    call = Writing(tool, "big.txt")
    for _ in range(MAX_WRITE // 2**20):
        call.text.add("é" * 2**19)
    assert not call.task.done()
    call.text.add("x")

    with pytest.raises(WriteFailed, match="longer than 16777216 bytes"):
        await call.task

    assert snapshot(folder) == before


async def test_a_text_of_exactly_the_limit_is_written(folder: Path, tool: Any) -> None:
    assert (await tool("big.txt", "x" * MAX_WRITE)).bytes == MAX_WRITE


async def test_half_a_character_is_refused(folder: Path, tool: Any) -> None:
    before = snapshot(folder)

    with pytest.raises(WriteFailed, match=r"'new\.txt': U\+D83D is half a character"):
        await tool("new.txt", "a\ud83db")

    assert snapshot(folder) == before


# Threads


async def test_work_in_a_thread_is_over_when_its_cancellation_is() -> None:
    loop, began, go = asyncio.get_running_loop(), asyncio.Event(), asyncio.Event()
    done: list[bool] = []

    def work() -> None:
        loop.call_soon_threadsafe(began.set)
        asyncio.run_coroutine_threadsafe(go.wait(), loop).result(5)
        done.append(True)
        raise OSError("nobody looks at it")

    task = asyncio.ensure_future(settled(work))
    await began.wait()
    for _ in range(3):
        task.cancel()
        await asyncio.sleep(0)
        assert not task.done()
    go.set()
    with pytest.raises(asyncio.CancelledError):
        await task

    assert done == [True]

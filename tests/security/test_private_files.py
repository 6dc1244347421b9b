"""What is kept on disk is for its owner alone, and nothing is put in its place."""

from __future__ import annotations

import errno
import os
import stat
from collections.abc import Iterator
from pathlib import Path

import pytest

from agentflow import Engine, tool, workflow
from agentflow._private import check_owner, make_folder, own_file, own_folder, replace_text
from agentflow.budgets.estimates import Estimates
from agentflow.caches.disk import FILE
from agentflow.caches.speculation.policy import Speculation


@pytest.fixture(autouse=True)
def _open_umask() -> Iterator[None]:
    """Nothing is private by itself."""
    before = os.umask(0)
    yield
    os.umask(before)


def modes(folder: Path) -> dict[str, int]:
    """Permission bits of everything below a folder that is not only its owner's."""
    found = {
        str(path.relative_to(folder)): stat.S_IMODE(path.lstat().st_mode)
        for path in folder.rglob("*")
    }
    return {path: mode for path, mode in found.items() if mode not in (0o600, 0o700)}


@tool(pure=True)
async def large(n: int) -> str:
    """A result that gets a file of its own."""
    return "x" * 300_000


@workflow
async def main() -> int:
    return len(await large(1)) + len(await large(2))


async def test_whatever_an_engine_keeps_is_private(tmp_path: Path) -> None:
    home = tmp_path / "a" / "b"
    for _ in range(2):
        async with Engine(
            cache=home / "cache",
            speculation=Speculation(memory=home / "cache" / "learnt.json"),
            journal=home / "journal" / "journal.db",
        ) as engine:
            assert await engine.run(main) == 600_000
            assert modes(tmp_path) == {}

    names = {path.name for path in tmp_path.rglob("*")}
    assert {FILE, "learnt.json", "journal.db"} <= names
    assert any(name.endswith(".val") for name in names)
    assert modes(tmp_path) == {}


async def test_a_cache_that_others_could_read_is_closed_to_them(tmp_path: Path) -> None:
    async with Engine(cache=tmp_path / "cache") as engine:
        await engine.run(main)
    values = tmp_path / "cache" / "values"
    values.chmod(0o755)
    (values / FILE).chmod(0o644)

    async with Engine(cache=tmp_path / "cache") as engine:
        await engine.run(main)

    assert modes(values) == {}
    assert stat.S_IMODE(values.stat().st_mode) == 0o700


async def test_a_link_in_place_of_a_cache_is_not_followed(tmp_path: Path) -> None:
    values = tmp_path / "cache" / "values"
    values.mkdir(parents=True, mode=0o700)
    (tmp_path / "cache").chmod(0o700)
    (values / FILE).symlink_to(tmp_path / "outside.db")

    async with Engine(cache=tmp_path / "cache") as engine:
        assert await engine.run(main) == 600_000

    assert not (tmp_path / "outside.db").exists()


def saved(path: Path) -> bool:
    estimates = Estimates(path)
    estimates.settled("k", {"m": (1, 2)})
    return estimates.save()


def test_estimates_are_private_even_where_they_were_not(tmp_path: Path) -> None:
    path = tmp_path / "new" / "folder" / "estimates.json"
    assert saved(path)
    path.chmod(0o666)
    assert saved(path)
    assert modes(tmp_path) == {}


def test_estimates_are_not_kept_where_everybody_may_write(tmp_path: Path) -> None:
    folder = tmp_path / "open"
    folder.mkdir(mode=0o777)
    estimates = Estimates(folder / "estimates.json")
    estimates.settled("k", {"m": (1, 2)})

    assert not estimates.save()

    assert f"chmod o-w {folder}" in str(estimates.problem)
    assert list(folder.iterdir()) == []


def test_a_folder_like_tmp_will_do_for_estimates(tmp_path: Path) -> None:
    folder = tmp_path / "sticky"
    folder.mkdir()
    folder.chmod(0o1777)
    assert saved(folder / "estimates.json")


@pytest.mark.parametrize("what", ["pipe", "folder"])
def test_something_else_in_place_of_estimates_is_left_alone(tmp_path: Path, what: str) -> None:
    path = tmp_path / "estimates.json"
    if what == "pipe":
        os.mkfifo(path)
    else:
        path.mkdir()

    assert not saved(path)

    assert not path.is_file()


def test_a_link_in_place_of_the_lock_of_estimates_is_refused(tmp_path: Path) -> None:
    (tmp_path / "estimates.json.lock").symlink_to(tmp_path / "outside")
    assert not saved(tmp_path / "estimates.json")
    assert not (tmp_path / "outside").exists()


def test_missing_folders_are_made_private_from_the_first_one_on(tmp_path: Path) -> None:
    make_folder(tmp_path / "a" / "b" / "c")
    assert modes(tmp_path) == {}


def test_a_folder_in_one_that_others_may_change_is_refused(tmp_path: Path) -> None:
    above = tmp_path / "shared"
    above.mkdir(mode=0o777)
    with pytest.raises(PermissionError, match="chmod go-w"):
        own_folder(above / "mine")


def test_a_private_file_is_made_once_and_stays_what_it_is(tmp_path: Path) -> None:
    path = tmp_path / "file"
    own_file(path)
    assert (path.read_bytes(), modes(tmp_path)) == (b"", {})
    path.write_bytes(b"kept")
    path.chmod(0o644)
    own_file(path)
    assert (path.read_bytes(), modes(tmp_path)) == (b"kept", {})


def test_a_text_that_cannot_be_written_leaves_the_old_one_alone(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(_descriptor: int) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    path = tmp_path / "file"
    replace_text(path, "old")
    monkeypatch.setattr(os, "fsync", full)

    with pytest.raises(OSError, match="No space"):
        replace_text(path, "new")

    assert {each.name: each.read_text() for each in tmp_path.iterdir()} == {"file": "old"}
    assert modes(tmp_path) == {}


@pytest.mark.parametrize("target", ["there", "nowhere"])
def test_a_link_is_no_private_file(tmp_path: Path, target: str) -> None:
    (tmp_path / "there").write_bytes(b"")
    (tmp_path / "link").symlink_to(target)
    with pytest.raises(PermissionError, match="is a link"):
        own_file(tmp_path / "link")
    with pytest.raises(PermissionError, match="is a link"):
        check_owner(tmp_path / "link")
    assert stat.S_IMODE((tmp_path / "there").stat().st_mode) == 0o666
    assert check_owner(tmp_path / "nothing") is None

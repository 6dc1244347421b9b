"""A `Root` does not let anything out, whatever is swapped while it looks."""

from __future__ import annotations

import os
import socket
from collections.abc import Callable
from pathlib import Path

import pytest

from agentflow.errors import DefinitionError
from agentflow.tools.builtin.root import MAX_DEPTH, Entry, PathNotFound, PathRefused, Root


class Swapping(Root):
    """A root in which something happens after a component was looked at, and before it is opened."""

    def __init__(self, path: Path, name: str, swap: Callable[[], object]) -> None:
        super().__init__(path)
        self.name = name
        self.swap = swap

    def _mode(self, name: str, folder: int) -> int:
        mode = super()._mode(name, folder)
        if name == self.name:
            self.swap()
        return mode


def contents(root: Root, path: str) -> str:
    with root.open(path) as entry:
        return os.read(entry.fd, 1000).decode()


def open_descriptors() -> int:
    return len(os.listdir("/dev/fd"))


@pytest.mark.parametrize(
    ("path", "resolved"),
    [
        ("README.md", "README.md"),
        ("./src//main.py", "src/main.py"),
        ("src/../README.md", "README.md"),
        ("src/deep/../../src/./main.py", "src/main.py"),
    ],
)
def test_files_inside_are_opened(folder: Path, path: str, resolved: str) -> None:
    with Root(folder).open(path) as entry:
        assert (entry.path, entry.folder) == (resolved, False)
        assert os.read(entry.fd, 1000) == (folder / resolved).read_bytes()


@pytest.mark.parametrize("path", ["", ".", "./", "src/.."])
def test_the_root_itself_is_a_folder(folder: Path, path: str) -> None:
    with Root(folder).open(path) as entry:
        assert (entry.path, entry.folder) == (".", True)


@pytest.mark.parametrize(
    "path",
    [
        "..",
        "../secret.txt",
        "src/../../secret.txt",
        "src/deep/../../../secret.txt",
        "./../project/../secret.txt",
        "/etc/passwd",
        "//etc/passwd",
        "/",
        "README.md/../README.md",
        "README.md/x",
        "bad\0name",
        "\ud800",
    ],
)
def test_paths_that_lead_out_or_nowhere_are_refused(folder: Path, path: str) -> None:
    with pytest.raises(PathRefused), Root(folder).open(path):
        pass


def test_an_absolute_path_is_refused_even_if_it_is_inside(folder: Path) -> None:
    with pytest.raises(PathRefused, match="relative to the root"):
        contents(Root(folder), str(folder / "README.md"))


@pytest.mark.parametrize(
    ("at", "target"),
    [
        ("link", "../secret.txt"),
        ("link", "/etc/passwd"),
        ("src/link", "../../secret.txt"),
        ("src/link", "deep/../../../secret.txt"),
        ("link", "."),
    ],
)
def test_a_link_that_leads_out_is_refused(folder: Path, at: str, target: str) -> None:
    (folder / at).symlink_to(target)
    path = at if target != "." else "link/link/../secret.txt"

    with pytest.raises((PathRefused, PathNotFound)):
        contents(Root(folder), path)


def test_a_chain_of_links_is_refused_where_it_leaves(folder: Path) -> None:
    (folder / "one").symlink_to("two")
    (folder / "two").symlink_to("src/three")
    (folder / "src" / "three").symlink_to("../../secret.txt")

    with pytest.raises(PathRefused, match="leads out of the root"):
        contents(Root(folder), "one")


def test_links_inside_the_root_are_followed(folder: Path) -> None:
    (folder / "latest").symlink_to("src/deep")
    (folder / "src" / "deep" / "up").symlink_to("../main.py")

    with Root(folder).open("latest/up") as entry:
        assert entry.path == "src/main.py"


def test_a_loop_of_links_ends(folder: Path) -> None:
    (folder / "a").symlink_to("b")
    (folder / "b").symlink_to("a")

    with pytest.raises(PathRefused, match="links"):
        contents(Root(folder), "a")


def test_a_root_given_by_a_link_is_the_folder_it_leads_to(folder: Path, tmp_path: Path) -> None:
    (tmp_path / "link").symlink_to(folder)

    assert contents(Root(tmp_path / "link"), "README.md").startswith("# Title")


def test_a_fifo_is_refused_without_waiting(folder: Path) -> None:
    os.mkfifo(folder / "pipe")

    with pytest.raises(PathRefused, match="not a regular file"):
        contents(Root(folder), "pipe")


def test_a_socket_is_refused(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(folder)  # the path of a socket is short
    with socket.socket(socket.AF_UNIX) as server:
        server.bind("socket")

        with pytest.raises(PathRefused, match="not a regular file"):
            contents(Root(folder), "socket")


def test_devices_are_refused() -> None:
    with pytest.raises(PathRefused, match="not a regular file"):
        contents(Root("/dev"), "null")


def test_a_file_that_becomes_a_link_between_two_steps_is_refused(folder: Path) -> None:
    def swap() -> None:
        (folder / "README.md").unlink()
        (folder / "README.md").symlink_to("../secret.txt")

    with pytest.raises(PathRefused):
        contents(Swapping(folder, "README.md", swap), "README.md")


def test_a_folder_that_becomes_a_link_between_two_steps_is_refused(
    folder: Path, tmp_path: Path
) -> None:
    (tmp_path / "outside").mkdir()
    (tmp_path / "outside" / "main.py").write_text("secret")

    def swap() -> None:
        (folder / "src").rename(tmp_path / "moved")
        (folder / "src").symlink_to("../outside")

    with pytest.raises(PathRefused):
        contents(Swapping(folder, "src", swap), "src/main.py")


def test_a_folder_that_is_moved_out_does_not_take_its_parent_along(
    folder: Path, tmp_path: Path
) -> None:
    (tmp_path / "outside").mkdir()
    (tmp_path / "outside" / "README.md").write_text("secret")

    def swap() -> None:
        (folder / "src" / "deep").rename(tmp_path / "outside" / "deep")

    root = Swapping(folder, "deep", swap)
    (folder / "src" / "deep" / "x").mkdir()

    with pytest.raises((PathNotFound, PathRefused)):
        contents(root, "src/deep/../README.md")


def test_the_way_back_goes_along_our_own_descriptors(folder: Path, tmp_path: Path) -> None:
    (tmp_path / "outside").mkdir()
    (tmp_path / "outside" / "README.md").write_text("secret")
    (folder / "src" / "deep" / "inner").mkdir()
    (folder / "src" / "README.md").write_text("ours")

    def swap() -> None:
        (folder / "src" / "deep").rename(tmp_path / "outside" / "deep")

    # When `inner` is looked at, `deep` is open already; its real parent is now outside.
    root = Swapping(folder, "inner", swap)

    with pytest.raises(PathNotFound):
        contents(root, "src/deep/inner/../../../secret.txt")
    assert contents(Root(folder), "src/README.md") == "ours"


def test_a_fifo_swapped_in_between_two_steps_is_refused_without_waiting(folder: Path) -> None:
    def swap() -> None:
        (folder / "README.md").unlink()
        os.mkfifo(folder / "README.md")

    with pytest.raises(PathRefused, match="not a regular file"):
        contents(Swapping(folder, "README.md", swap), "README.md")


def test_a_missing_file_is_named_with_what_is_like_it(folder: Path) -> None:
    with pytest.raises(PathNotFound, match=r"'src/mian\.py'.*Did you mean 'main\.py'") as missing:
        contents(Root(folder), "src/mian.py")

    assert isinstance(missing.value, FileNotFoundError)
    assert str(folder) not in str(missing.value)


def test_no_descriptor_is_left_open(folder: Path) -> None:
    root = Root(folder)
    os.mkfifo(folder / "pipe")
    (folder / "link").symlink_to("../secret.txt")
    before = open_descriptors()

    for path in ("README.md", "src/deep/..", "pipe", "link", "src/deep/missing", "/x", "src/../.."):
        try:
            contents(root, path)
        except OSError:
            continue
    with root.open(".") as start:
        next(root.files(start))

    assert open_descriptors() == before


# Where a file would be


@pytest.mark.parametrize(
    ("path", "resolved", "missing", "there"),
    [
        ("README.md", "README.md", (), True),
        ("src/../src/main.py", "src/main.py", (), True),
        ("new.txt", "new.txt", (), False),
        ("src/./a//b/c", "src/a/b/c", ("a", "b"), False),
        ("latest/new", "src/deep/new", (), False),
        ("dangling/x", "src/made/later/x", ("made", "later"), False),
    ],
)
def test_a_file_has_a_place_before_it_is_there(
    folder: Path, path: str, resolved: str, missing: tuple[str, ...], there: bool
) -> None:
    (folder / "latest").symlink_to("src/deep")
    (folder / "dangling").symlink_to("src/made/later")

    with Root(folder).place(path) as place:
        assert (place.path, place.missing, place.mode is not None) == (resolved, missing, there)
        assert place.name == resolved.rpartition("/")[2]


def test_a_folder_that_becomes_a_link_is_not_followed_to_a_place(folder: Path) -> None:
    def swap() -> None:
        (folder / "src").rename(folder / "moved")
        (folder / "src").symlink_to("..")

    with pytest.raises(PathRefused), Swapping(folder, "src", swap).place("src/new.txt"):
        pass


def test_a_folder_that_goes_away_is_one_that_is_missing(folder: Path) -> None:
    root = Swapping(folder, "src", lambda: (folder / "src").rename(folder / "moved"))

    with root.place("src/deep/new.txt") as place:
        assert place.missing == ("src", "deep")


def test_no_descriptor_is_left_open_for_a_place(folder: Path) -> None:
    root = Root(folder)
    before = open_descriptors()

    for path in ("README.md", "src/deep/new", "a/b", "src", "README.md/x", "/x", "src/../../x"):
        try:
            with root.place(path):
                pass
        except OSError:
            continue

    assert open_descriptors() == before


def test_files_are_walked_in_order_without_links_and_caches(folder: Path) -> None:
    (folder / "a-link").symlink_to("src")
    (folder / "src" / "z-link.py").symlink_to("main.py")
    for hidden in (".git", "node_modules", "__pycache__"):
        (folder / hidden).mkdir()
        (folder / hidden / "x.txt").write_text("x")
    (folder / "env").mkdir()
    (folder / "env" / "pyvenv.cfg").write_text("home = /usr\n")
    os.mkfifo(folder / "pipe")

    root = Root(folder)
    with root.open(".") as start:
        paths = [entry.path for entry in root.files(start)]

    assert paths == ["README.md", "src/deep/notes.txt", "src/main.py"]


def test_a_cache_is_walked_when_it_is_asked_for(folder: Path) -> None:
    (folder / ".venv").mkdir()
    (folder / ".venv" / "pyvenv.cfg").write_text("home = /usr\n")

    root = Root(folder)
    with root.open(".venv") as start:
        assert [entry.path for entry in root.files(start)] == [".venv/pyvenv.cfg"]


def test_a_bottomless_folder_is_walked_to_a_limit(folder: Path) -> None:
    deep = folder
    for _ in range(MAX_DEPTH + 20):
        deep /= "d"
    deep.mkdir(parents=True)
    (deep / "file").write_text("too deep")
    (folder / "d" / "file").write_text("near")

    root = Root(folder)
    with root.open("d") as start:
        assert [entry.path for entry in root.files(start)] == ["d/file"]


def test_a_file_that_changes_while_it_is_walked_is_not_opened(folder: Path) -> None:
    root = Root(folder)
    with root.open(".") as start:
        found: Entry = next(root.files(start))
        (folder / "README.md").unlink()
        (folder / "README.md").symlink_to("../secret.txt")

        assert found.path == "README.md"
        assert root.open_file(found) is None


def test_names_that_are_not_utf8_are_left_out(folder: Path) -> None:
    try:
        (folder / os.fsdecode(b"caf\xe9.txt")).write_text("x")
    except OSError:
        pytest.skip("this file system takes UTF-8 names only")

    root = Root(folder)
    with root.open(".") as start:
        assert all(entry.path.isascii() for entry in root.files(start))


@pytest.mark.parametrize("path", ["missing", "README.md"])
def test_a_root_is_a_folder(folder: Path, path: str) -> None:
    with pytest.raises(DefinitionError, match="not a folder"):
        Root(folder / path)

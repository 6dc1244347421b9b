"""The built-in tools against what a hostile model, server or program may try."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from agentflow.tools.builtin import file_tools, http_tools, python_tool
from agentflow.tools.builtin.addresses import AddressPolicy, AddressRefused
from agentflow.tools.builtin.http import FetchFailed
from agentflow.tools.builtin.root import MAX_DEPTH, PathRefused
from agentflow.tools.builtin.scratch import remove

# Files


@pytest.fixture
def root(tmp_path: Path) -> Path:
    folder = tmp_path / "root"
    (folder / ".git" / "hooks").mkdir(parents=True)
    return folder


@pytest.fixture
def tools(root: Path) -> dict[str, Any]:
    return {tool.name: tool for tool in file_tools(root, write=True)}


@pytest.mark.parametrize(
    "path",
    [".git/hooks/pre-commit", ".GIT/config", "sub/.git", "a/../.git/x", ".hg/hgrc", "link/x"],
)
async def test_nothing_is_written_that_a_version_control_system_would_run(
    tools: dict[str, Any], root: Path, path: str
) -> None:
    (root / "a").mkdir()
    (root / "link").symlink_to(".git/hooks")

    with pytest.raises(PathRefused, match="repository's own folder"):
        await tools["write_file"](path, "exec evil")

    assert list((root / ".git" / "hooks").iterdir()) == []


async def test_a_name_that_begins_like_a_repository_s_is_any_other(tools: dict[str, Any]) -> None:
    for path in (".gitignore", ".github/workflow.yml", "x.git"):
        await tools["write_file"](path, "fine")


async def test_a_path_holds_few_descriptors_however_deep_it_is(
    tools: dict[str, Any], root: Path
) -> None:
    deep = "d/" * MAX_DEPTH
    await tools["write_file"](f"{deep}file", "fits")
    assert (await tools["read_file"](f"{deep}file")).text == "fits"

    with pytest.raises(PathRefused, match="more than 64 folders"):
        await tools["write_file"](f"{deep}d/file", "does not")
    os.mkdir(root / deep / "d")
    with pytest.raises(PathRefused, match="more than 64 folders"):
        await tools["read_file"](f"{deep}d/file")


async def test_a_hard_link_is_read_and_its_other_name_never_written(
    tools: dict[str, Any], root: Path, tmp_path: Path
) -> None:
    other = tmp_path / "other.txt"
    other.write_text("as it was")
    os.link(other, root / "linked.txt")

    assert (await tools["read_file"]("linked.txt")).text == "as it was"
    await tools["write_file"]("linked.txt", "new")

    assert other.read_text() == "as it was"


@pytest.mark.parametrize("target", ["/proc/self/environ", "/dev/zero", "/dev/stdin", "../../etc"])
async def test_a_link_to_what_the_system_offers_is_refused(
    tools: dict[str, Any], root: Path, target: str
) -> None:
    (root / "link").symlink_to(target)
    for name, arguments in (("read_file", ()), ("write_file", ("x",))):
        with pytest.raises(PathRefused):
            await tools[name]("link", *arguments)


async def test_names_that_would_command_a_terminal_are_names(tools: dict[str, Any]) -> None:
    name = "a\nb\x1b[31m\x07.txt"
    await tools["write_file"](name, "text")
    assert (await tools["read_file"](name)).text == "text"


# Addresses

PRIVATE = [
    *("127.0.0.1", "0.0.0.0", "0.1.2.3", "10.0.0.1", "172.31.255.255", "192.168.1.1"),
    *("169.254.169.254", "100.64.0.1", "198.18.0.1", "224.0.0.1", "255.255.255.255"),
    *("::", "::1", "::1%lo", "fe80::1%eth0", "fc00::1", "fec0::1", "ff02::1", "2001:db8::1"),
    *("::ffff:127.0.0.1", "::ffff:10.0.0.1", "::127.0.0.1", "::ffff:0:127.0.0.1"),
    *("64:ff9b::127.0.0.1", "64:ff9b::a9fe:a9fe", "64:ff9b:1::1"),
    *("2002:7f00:1::", "2002:c0a8:101::1", "2001:0:7f00:1::", "fd00:ec2::254"),
    *("2600::5efe:127.0.0.1", "2600:1234::200:5efe:192.168.0.1"),
]


@pytest.mark.parametrize("address", PRIVATE)
def test_an_address_that_ends_in_a_private_network_is_refused(address: str) -> None:
    with pytest.raises(AddressRefused):
        AddressPolicy().check(address, "host")


@pytest.mark.parametrize("address", ["8.8.8.8", "2606:4700::1111", "64:ff9b::8.8.8.8"])
def test_a_public_address_is_not(address: str) -> None:
    assert str(AddressPolicy().check(address, "host"))


@pytest.mark.parametrize(
    "url",
    [
        *("http://127.1/", "http://2130706433/", "http://0x7f.1/", "http://0177.0.0.1/"),
        *("http://127.0.0.1./", "http://0/", "http://[::]/", "http://[::ffff:7f00:1]/"),
        *("http://127。0。0。1/", "http://①②⑦.⓪.⓪.①/", "http://[::1%25lo]/"),
        *("http://example.com@127.0.0.1/", "http://example.com\\@127.0.0.1/"),
        *("http://127.0.0.1\r\nHost: x/", "http:127.0.0.1/", "//127.0.0.1/", "file:///etc/passwd"),
    ],
)
async def test_no_spelling_of_this_machine_gets_there(url: str) -> None:
    (get,) = http_tools(resolver=_no_names)
    with pytest.raises((AddressRefused, FetchFailed)):
        await get(url)


@pytest.mark.parametrize("port", ["99999", "65536", "-1", "0"])
async def test_there_is_no_such_port(port: str) -> None:
    (get,) = http_tools(allow=["127.0.0.1/32"])
    with pytest.raises(FetchFailed, match="no such port"):
        await get(f"http://127.0.0.1:{port}/")


async def _no_names(host: str, port: int) -> list[str]:
    raise OSError("no names here")


@pytest.mark.parametrize("url", ["http://u:hidden-1\n@host:x/", f"http://h/{'a' * 70_000}#?x@"])
async def test_an_error_quotes_little_of_a_url_and_no_password(url: str) -> None:
    (get,) = http_tools(resolver=_no_names)
    with pytest.raises(FetchFailed) as caught:
        await get(url)
    assert "hidden-1" not in str(caught.value)
    assert len(str(caught.value)) < 300


# Programs


@pytest.fixture
def scratch(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """Where temporary folders are made; nothing may be left there."""
    folder = tmp_path / "scratch"
    folder.mkdir()
    monkeypatch.setattr("tempfile.tempdir", str(folder))
    yield folder
    left = list(folder.iterdir())
    subprocess.run(["rm", "-rf", *left], check=True)  # pytest itself could not remove it
    assert left == []


PROGRAMS = {
    "deep": "for i in range(2000): os.mkdir('d'); os.chdir('d')",
    "locked": "for i in range(900): os.mkdir('d'); os.chdir('d')\n"
    "for i in range(900): os.chdir('..'); os.chmod('d', 0)",
    "links": "os.symlink('/etc', 'etc'); os.symlink('nowhere', 'x'); os.mkfifo('pipe')",
    "names": "os.mkdir(b'\\xff\\n'); open(b'\\xff\\n/\\x1b[31m', 'w').close()",
}


@pytest.mark.parametrize("name", PROGRAMS)
async def test_the_folder_of_a_program_is_removed_whatever_is_in_it(
    scratch: Path, name: str
) -> None:
    done = await python_tool()(f"import os\n{PROGRAMS[name]}\nprint('made')")
    assert (done.stdout, done.exit_code) == ("made\n", 0)


def test_what_a_folder_links_to_keeps_its_place_and_its_mode(tmp_path: Path) -> None:
    outside = tmp_path / "outside"
    outside.mkdir(mode=0o500)
    folder = tmp_path / "folder"
    (folder / "inner").mkdir(parents=True)
    (folder / "link").symlink_to(outside)
    (folder / "inner" / "link").symlink_to(outside)

    remove(folder)

    assert not folder.exists()
    assert outside.stat().st_mode & 0o777 == 0o500


async def test_a_program_inherits_no_environment_and_no_descriptor(
    scratch: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("OPENAI_API_KEY", "sk-canary-4f1f6e2b9c")
    read, write = os.pipe()
    os.set_inheritable(write, True)
    try:
        done = await python_tool()(
            "import os\n"
            "print(sorted(os.environ), open('/proc/self/environ').read().count('canary'))\n"
            "print([fd for fd in range(256) if os.path.exists(f'/proc/self/fd/{fd}')])"
        )
    finally:
        os.close(read)
        os.close(write)

    names, descriptors = done.stdout.splitlines()
    assert names == "['HOME', 'LANG', 'PATH', 'TMPDIR'] 0"
    assert descriptors == "[0, 1, 2]"


async def test_a_program_that_stops_its_keeper_is_killed_all_the_same(scratch: Path) -> None:
    program = (
        "import os, signal, time\n"
        "if os.fork() == 0:\n"
        "    os.setsid()\n"
        "    print(os.getpid(), flush=True)\n"
        "    time.sleep(60)\n"
        "os.kill(os.getppid(), signal.SIGSTOP)\n"
        "time.sleep(60)\n"
    )

    done = await python_tool(timeout=0.3)(program)

    assert (done.timed_out, done.exit_code) == (True, 137)
    assert not os.path.exists(f"/proc/{int(done.stdout)}/cwd")

"""`cpm data coco` against a server of its own, which drops connections, sends wrong bytes, or knows no ranges."""

from __future__ import annotations

import functools
import hashlib
import http.server
import io
import json
import shutil
import socket
import struct
import threading
import zipfile
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from PIL import Image

from cpm_lib.cli import main
from cpm_lib.data import coco_download, coco_server, open_source
from cpm_lib.data.coco_download import check
from cpm_lib.errors import UserError

COUNTS = {"train": 5, "val": 3}
Answer = tuple[Any, ...]


class Server(http.server.ThreadingHTTPServer):
    """Serves `files`; for each request the next of `answers`, if there is one, says what goes wrong.

    ("drop", n): n bytes, then the connection closes; ("reset", n): is reset; ("status", code); ("lie", header): with
    this Content-Range. `ranges` false: ignores Range; `lengths` false: sends no Content-Length.
    """

    daemon_threads = True

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.files: dict[str, bytes] = {}
        self.answers: list[Answer] = []
        self.ranges = self.lengths = True
        self.requests: list[tuple[str, str | None]] = []

    def handle_error(self, *arguments: Any) -> None:
        """A client that hangs up is nothing to write about."""

    @property
    def names(self) -> list[str]:
        """The last part of each path that was asked for."""
        return [path.rpartition("/")[2] for path, _ in self.requests]


class _Handler(http.server.BaseHTTPRequestHandler):
    server: Server

    def do_GET(self) -> None:
        wish = self.headers.get("Range")
        self.server.requests.append((self.path, wish))
        kind, value = self.server.answers.pop(0) if self.server.answers else ("", None)
        content = self.server.files.get(self.path)
        if kind == "status" or content is None:
            self.send_error(value or 404)
            return
        start = int(wish.removeprefix("bytes=").removesuffix("-")) if wish and self.server.ranges else 0
        if start >= len(content):
            self.send_error(416)
            return
        self.send_response(206 if start else 200)
        if start:
            span = f"bytes {start}-{len(content) - 1}/{len(content)}"
            self.send_header("Content-Range", value if kind == "lie" else span)
        if self.server.lengths:
            self.send_header("Content-Length", str(len(content) - start))
        self.end_headers()
        self.wfile.write(content[start:] if kind not in ("drop", "reset") else content[start : start + value])
        if kind == "reset":
            self.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            self.connection.close()

    def log_message(self, *arguments: Any) -> None:
        pass


@pytest.fixture
def server(monkeypatch: pytest.MonkeyPatch) -> Iterator[Server]:
    with Server() as server:
        monkeypatch.setenv("no_proxy", "127.0.0.1")
        monkeypatch.setenv("CPM_COCO_URL", f"http://127.0.0.1:{server.server_port}/mirror/")
        monkeypatch.setattr(coco_server, "_CHUNK", 500)
        threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True).start()
        yield server
        server.shutdown()


def picture(number: int) -> bytes:
    file = io.BytesIO()
    Image.effect_noise((32, 24), 40 + number).convert("RGB").save(file, "JPEG")
    return file.getvalue()


def packed(members: dict[str, bytes]) -> bytes:
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w", zipfile.ZIP_DEFLATED) as out:
        for name, content in members.items():
            out.writestr(name, content)
    return file.getvalue()


def image_members(split: str) -> dict[str, bytes]:
    return {f"{split}2017/": b""} | {f"{split}2017/{i:012d}.jpg": picture(i) for i in range(1, COUNTS[split] + 1)}


def instances(count: int) -> bytes:
    return json.dumps(
        {
            "images": [{"id": i, "file_name": f"{i:012d}.jpg", "width": 32, "height": 24} for i in range(1, count + 1)],
            "annotations": [{"id": 1, "image_id": 1, "category_id": 18, "bbox": [1, 2, 9, 8], "iscrowd": 0}],
            "categories": [{"id": 18, "name": "dog"}],
        }
    ).encode()


@pytest.fixture
def coco(server: Server, tmp_path: Path) -> SimpleNamespace:
    """A tiny COCO on the server. `serve(name, content)` puts another archive there; `get()` downloads."""
    coco = SimpleNamespace(root=tmp_path / "coco", archives={}, lines=[])

    def serve(name: str, content: bytes) -> None:
        """An archive, and its entry in the table."""
        original = coco_download.COCO_2017[name]
        server.files[f"/mirror/{original.path}"] = content
        coco.archives[name] = replace(
            original,
            size=len(content),
            md5=hashlib.md5(content).hexdigest(),
            unpacked=10_000,
            images=COUNTS.get(name, 0),
        )

    def get(*splits: str, **options: Any) -> dict[str, int]:
        given = {"archives": coco.archives, "waits": (0.0, 0.0), "say": coco.lines.append, **options}
        return coco_download.download(coco.root, splits or ("train", "val"), **given)

    serve("annotations", packed({f"annotations/instances_{s}2017.json": instances(n) for s, n in COUNTS.items()}))
    for split in COUNTS:
        serve(split, packed(image_members(split)))
    coco.serve, coco.get = serve, get
    coco.part, coco.zip = coco.root / "val2017.zip.part", coco.root / "val2017.zip"
    return coco


def refused(call: Callable[[], Any], *words: str) -> str:
    with pytest.raises(UserError) as caught:
        call()
    message = str(caught.value)
    assert "\n" not in message and all(word in message for word in words), message
    return message


def left_over(root: Path) -> list[str]:
    return sorted(path.name for path in root.iterdir())


# ---- what should happen


def test_download_opens_as_a_source(coco: SimpleNamespace, server: Server) -> None:
    assert coco.get() == COUNTS
    assert left_over(coco.root) == [".compared.json", "annotations", "train2017", "val2017"]
    for split, count in COUNTS.items():
        data = open_source(f"coco:{coco.root},{split}")
        assert len(data) == count and data[count - 1][0].shape == (3, 24, 32)
    assert server.names == ["annotations_trainval2017.zip", "train2017.zip", "val2017.zip"]
    assert any("train2017.zip: right; unpacking" in line for line in coco.lines)


def test_second_call_downloads_and_reads_nothing(
    coco: SimpleNamespace, server: Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    coco.get()
    server.requests.clear()

    def no_reading(path: Path) -> None:
        raise AssertionError("the annotations were compared already")

    with monkeypatch.context() as patch:
        patch.setattr(coco_download, "read_json", no_reading)
        assert coco.get() == check(coco.root, archives=coco.archives) == COUNTS
    assert server.requests == []
    # Other annotations than those compared are read again.
    (coco.root / "annotations" / "instances_val2017.json").write_bytes(instances(2))
    refused(coco.get, "not the images of", "0 absent, 1 not annotated")


def test_one_split_and_kept_archives(coco: SimpleNamespace, server: Server) -> None:
    assert coco.get("val", keep_archives=True) == {"val": 3}
    assert not (coco.root / "train2017").exists() and coco.zip.is_file()
    server.requests.clear()
    shutil.rmtree(coco.root / "val2017")
    assert coco.get("val") == {"val": 3}  # from the kept archive
    assert server.requests == [] and not coco.zip.exists()


def test_check_says_what_is_missing(coco: SimpleNamespace) -> None:
    look = functools.partial(check, coco.root, archives=coco.archives, say=coco.lines.append)
    refused(look, "annotations, train2017, val2017", "--download")
    coco.get("val")
    refused(look, str(coco.root), ": train2017 of COCO 2017 missing")
    coco.get()
    assert look() == COUNTS


def test_a_copy_of_somebody_else(coco: SimpleNamespace, server: Server) -> None:
    with zipfile.ZipFile(io.BytesIO(server.files["/mirror/zips/val2017.zip"])) as file:
        file.extractall(coco.root)
    (coco.root / "annotations").mkdir()
    (coco.root / "annotations" / "instances_val2017.json").write_bytes(instances(3))
    assert coco.get("val") == {"val": 3} and server.requests == []
    # What is there in part is neither completed nor overwritten.
    (coco.root / "val2017" / f"{1:012d}.jpg").unlink()
    refused(lambda: coco.get("val"), "val2017: 2 images instead of 3", "move the folder away")
    shutil.rmtree(coco.root / "val2017")
    refused(coco.get, "instances_train2017.json: absent", "move the folder away")
    assert server.requests == []


# ---- broken connections


@pytest.mark.parametrize("kind", ["drop", "reset"])
def test_dropped_connection_is_resumed(kind: str, coco: SimpleNamespace, server: Server) -> None:
    server.answers = [("", None), (kind, 1200), (kind, 0), (kind, 700)]
    assert coco.get("val", waits=[0] * 4) == {"val": 3}
    wishes = [wish for path, wish in server.requests if path.endswith("/val2017.zip")]
    assert len(wishes) == 4 and wishes[0] is None
    if kind == "drop":  # a reset may lose some of what was on its way
        assert wishes[1:] == ["bytes=1200-", "bytes=1200-", "bytes=1900-"]
    assert sum("next try in 0 s" in line for line in coco.lines) == 3


def test_giving_up_keeps_the_part_for_the_next_call(coco: SimpleNamespace, server: Server) -> None:
    coco.get("train")
    server.answers = [("drop", 1000), ("drop", 0), ("drop", 0)]
    refused(lambda: coco.get("val"), "connection lost after 1,000 of", "what has arrived is kept", "CPM_COCO_URL")
    assert coco.part.stat().st_size == 1000
    server.requests.clear()
    assert coco.get("val") == {"val": 3}
    assert [wish for _, wish in server.requests] == ["bytes=1000-"]


def test_each_gain_renews_the_tries(coco: SimpleNamespace, server: Server) -> None:
    coco.get("train")
    server.answers = [("drop", 100)] * 9
    assert coco.get("val") == {"val": 3}
    assert len([name for name in server.names if name == "val2017.zip"]) == 10


def test_server_without_ranges(coco: SimpleNamespace, server: Server) -> None:
    coco.get("train")
    server.ranges = False
    server.answers = [("drop", 1500)]
    assert coco.get("val") == {"val": 3}
    # One that always breaks off at the same place gains nothing: it must not go on for ever.
    shutil.rmtree(coco.root / "val2017")
    server.answers = [("drop", 1500)] * 9
    refused(lambda: coco.get("val"), "connection lost after 1,500")
    assert len(server.answers) == 6


def test_server_without_lengths(coco: SimpleNamespace, server: Server) -> None:
    server.lengths = False
    server.answers = [("drop", 300)]
    assert coco.get() == COUNTS
    shutil.rmtree(coco.root / "val2017")
    server.files["/mirror/zips/val2017.zip"] += bytes(100_000)
    refused(lambda: coco.get("val"), "val2017.zip.part", "bytes instead of", "it was removed")
    assert not coco.part.exists()


def test_interrupt_leaves_a_part_that_goes_on(
    coco: SimpleNamespace, server: Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    coco.get("train")
    read, calls = coco_server._read, []

    def interrupted(response: Any) -> bytes:
        calls.append(response)
        if len(calls) == 3:
            raise KeyboardInterrupt
        return read(response)

    with monkeypatch.context() as patch:
        patch.setattr(coco_server, "_read", interrupted)
        with pytest.raises(KeyboardInterrupt, match="the same command continues"):
            coco.get("val")
    assert coco.part.stat().st_size == 1000 and not (coco.root / "val2017").exists()
    server.requests.clear()
    assert coco.get("val") == {"val": 3} and server.requests[0][1] == "bytes=1000-"


def test_interrupt_while_unpacking(coco: SimpleNamespace, server: Server, monkeypatch: pytest.MonkeyPatch) -> None:
    coco.get("train")
    extract = zipfile.ZipFile.extract

    def interrupted(file: zipfile.ZipFile, member: zipfile.ZipInfo, path: Path) -> str:
        if member.filename.endswith("2.jpg"):
            raise KeyboardInterrupt
        return extract(file, member, path)

    with monkeypatch.context() as patch:
        patch.setattr(zipfile.ZipFile, "extract", interrupted)
        with pytest.raises(KeyboardInterrupt):
            coco.get("val")
    assert left_over(coco.root) == [".compared.json", "annotations", "train2017", "val2017.zip"]
    # A process that was killed cannot tidy up.
    (coco.root / ".val2017.unpacking" / "val2017").mkdir(parents=True)
    server.requests.clear()
    assert coco.get() == COUNTS and server.requests == []
    assert left_over(coco.root) == [".compared.json", "annotations", "train2017", "val2017"]


def test_half_an_archive_of_another_program(coco: SimpleNamespace, server: Server) -> None:
    coco.get("train")
    coco.zip.write_bytes(server.files["/mirror/zips/val2017.zip"][:800])
    server.requests.clear()
    assert coco.get("val") == {"val": 3} and server.requests[0][1] == "bytes=800-"


# ---- servers that answer something else


def test_status_codes(coco: SimpleNamespace, server: Server) -> None:
    server.answers = [("status", 503), ("status", 500)]
    assert coco.get("val") == {"val": 3}
    server.answers = [("status", 500)] * 3
    refused(coco.get, "train2017.zip: the server answers 500", "try again later")
    assert server.answers == []
    server.answers = [("status", 403), ("status", 403)]
    refused(coco.get, "the server answers 403", "check CPM_COCO_URL")
    assert len(server.answers) == 1  # no second try
    del server.files["/mirror/zips/train2017.zip"]
    server.answers = []
    refused(coco.get, "/mirror/zips/train2017.zip", "404")


def test_no_server_and_no_address(coco: SimpleNamespace, monkeypatch: pytest.MonkeyPatch) -> None:
    with socket.socket() as closed:
        closed.bind(("127.0.0.1", 0))
        monkeypatch.setenv("CPM_COCO_URL", f"http://127.0.0.1:{closed.getsockname()[1]}")
        refused(coco.get, "no answer (Connection refused)", "try again later")
    for address in ("images.cocodataset.org", "file:///etc"):
        monkeypatch.setenv("CPM_COCO_URL", address)
        refused(coco.get, f"CPM_COCO_URL={address}: not an address")


def test_truncated_file_on_the_server(coco: SimpleNamespace, server: Server) -> None:
    coco.get("train")
    server.files["/mirror/zips/val2017.zip"] = server.files["/mirror/zips/val2017.zip"][:-100]
    refused(lambda: coco.get("val"), "bytes on the server instead of", "check CPM_COCO_URL")
    assert not coco.part.exists()
    coco.part.write_bytes(server.files["/mirror/zips/val2017.zip"])
    refused(lambda: coco.get("val"), "the server answers 416")


@pytest.mark.parametrize("span", ["bytes 5-9/10", "bytes", "chars 800-900/1000"])
def test_another_range_than_asked_for(span: str, coco: SimpleNamespace, server: Server) -> None:
    coco.get("train")
    server.answers = [("drop", 800), ("lie", span)]
    refused(lambda: coco.get("val"), "another range")
    assert coco.part.stat().st_size == 800


@pytest.mark.parametrize("resumed", [False, True])
def test_wrong_bytes_are_removed(resumed: bool, coco: SimpleNamespace, server: Server) -> None:
    right = server.files["/mirror/zips/val2017.zip"]
    coco.get("train")
    if resumed:
        coco.part.write_bytes(b"?" + right[1:900])
    else:
        server.files["/mirror/zips/val2017.zip"] = right[:-1] + b"?"
    refused(lambda: coco.get("val"), "val2017.zip.part: wrong bytes, md5", "it was removed")
    assert left_over(coco.root) == [".compared.json", "annotations", "train2017"]
    server.files["/mirror/zips/val2017.zip"] = right
    assert coco.get("val") == {"val": 3}


# ---- archives


def test_damaged_member(coco: SimpleNamespace, server: Server) -> None:
    """The md5 is that of the damaged archive: only the CRC of the member tells."""
    content = bytearray(server.files["/mirror/zips/val2017.zip"])
    with zipfile.ZipFile(io.BytesIO(content)) as file:
        member = file.infolist()[2]
    at = member.header_offset + 30 + len(member.filename) + member.compress_size // 2
    content[at] ^= 0xFF
    coco.serve("val", bytes(content))
    refused(lambda: coco.get("val"), "val2017.zip: damaged archive (", "it was removed")
    assert left_over(coco.root) == ["annotations"]


@pytest.mark.parametrize(
    "name", ["../evil.jpg", "val2017/../../evil.jpg", "/evil.jpg", "val2017\\..\\evil.jpg", "evil.jpg", "val2017/.."]
)
def test_members_cannot_leave_the_folder(name: str, coco: SimpleNamespace, tmp_path: Path) -> None:
    coco.serve("val", packed(image_members("val") | {name: b"evil"}))
    refused(lambda: coco.get("val"), "damaged archive", "is not a file of the folder val2017")
    assert left_over(coco.root) == ["annotations"]
    assert not list(tmp_path.rglob("*evil*"))


def test_not_an_archive(coco: SimpleNamespace) -> None:
    coco.serve("val", b"<html>sign in</html>")
    refused(lambda: coco.get("val"), "damaged archive (File is not a zip file)")


def test_wrong_number_of_images(coco: SimpleNamespace) -> None:
    members = image_members("val")
    members.popitem()
    coco.serve("val", packed(members))
    refused(lambda: coco.get("val"), "damaged archive (2 images instead of 3)")
    assert left_over(coco.root) == ["annotations"]


def test_other_images_than_annotated(coco: SimpleNamespace) -> None:
    members = image_members("val")
    members["val2017/other.jpg"] = members.popitem()[1]
    coco.serve("val", packed(members))
    refused(lambda: coco.get("val"), "val2017: not the images of", "1 absent, 1 not annotated")


# ---- the disk


def test_too_little_space(coco: SimpleNamespace, server: Server, monkeypatch: pytest.MonkeyPatch) -> None:
    needed = sum(archive.size + archive.unpacked for archive in coco.archives.values())
    free = needed - 1
    monkeypatch.setattr(shutil, "disk_usage", lambda path: SimpleNamespace(free=free))
    refused(coco.get, f"need {needed / 1e9:.2f} GB more", f"{free / 1e9:.2f} GB are free", "free space")
    assert server.requests == []
    # What is there already is not needed again.
    coco.part.write_bytes(server.files["/mirror/zips/val2017.zip"][:1])
    assert coco.get() == COUNTS
    free = 0
    assert coco.get() == COUNTS


def test_sizes_of_the_real_thing(coco: SimpleNamespace, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(shutil, "disk_usage", lambda path: SimpleNamespace(free=30_000_000_000))
    refused(lambda: coco_download.download(coco.root), "need 42.16 GB more, 30.00 GB are free")
    assert {split: coco_download.COCO_2017[split].images for split in COUNTS} == {"train": 118_287, "val": 5_000}


def test_root_that_cannot_be_written(coco: SimpleNamespace, server: Server, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    for root in (tmp_path / "file", tmp_path / "file" / "coco"):
        coco.root = root
        refused(coco.get, f"{root}: cannot be read or written", "choose another --root")
    assert server.requests == []


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="no /dev/full")
def test_disk_that_fills_up(coco: SimpleNamespace) -> None:
    coco.get("train")
    coco.part.symlink_to("/dev/full")
    refused(lambda: coco.get("val"), "val2017.zip.part: cannot be read or written (No space left on device)")


# ---- the command


def test_command(
    coco: SimpleNamespace, server: Server, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    command = ["data", "coco", "--root", str(coco.root)]
    assert main(command) == 2
    assert capsys.readouterr().err == (
        f"cpm: error: {coco.root}: annotations, train2017, val2017 of COCO 2017 missing; "
        "add --download to fetch 20.41 GB\n"
    )
    assert not coco.root.exists()
    free = 10**12
    monkeypatch.setattr(shutil, "disk_usage", lambda path: SimpleNamespace(free=free))
    assert main([*command, "--download"]) == 2
    error = capsys.readouterr().err
    assert "bytes on the server instead of 252,907,541" in error and error.count("\n") == 1
    for function in (coco_download.download, coco_download.check):
        tiny = functools.partial(function, archives=coco.archives)
        monkeypatch.setattr(coco_download, function.__name__, tiny)
    assert main([*command, "--download", "--splits", "val", "--keep-archives"]) == 0
    assert capsys.readouterr().out.splitlines()[-1] == f"coco:{coco.root},val (3 images)"
    assert coco.zip.exists()
    assert main([*command, "--splits", "val"]) == 0
    assert capsys.readouterr().out == f"coco:{coco.root},val (3 images)\n"

"""COCO 2017 on the disk: what is missing, fetching it, unpacking it, comparing it with its annotations."""

from __future__ import annotations

import json
import os
import shutil
import zipfile
import zlib
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from cpm_lib.data import coco_server
from cpm_lib.data.coco import read_json
from cpm_lib.errors import UserError
from cpm_lib.files import write_atomic
from cpm_lib.progress import progress

SPLITS = ("train", "val")
_COMPARED = ".compared.json"  # reading the annotations of `train` takes half a minute: once is enough


@dataclass(frozen=True)
class Archive:
    """A zip file on the server; all it holds lies in one folder.

    Attributes:
        path: below the base URL.
        folder: the folder inside, which becomes ROOT/folder.
        size: of the zip file, bytes.
        md5: of the zip file, hexadecimal.
        unpacked: what the folder takes on a disk, bytes, rounded up.
        images: how many there are inside; 0 for the annotations.
    """

    path: str
    folder: str
    size: int
    md5: str
    unpacked: int
    images: int = 0

    @property
    def name(self) -> str:
        return self.path.rpartition("/")[2]


COCO_2017: Mapping[str, Archive] = {
    "annotations": Archive(
        "annotations/annotations_trainval2017.zip",
        "annotations",
        size=252_907_541,
        md5="f4bbac642086de4f52a3fdda2de5fa2c",
        unpacked=900_000_000,
    ),
    "train": Archive(
        "zips/train2017.zip",
        "train2017",
        size=19_336_861_798,
        md5="cced6f7f71b7629ddf16f17bbcfab6b2",
        unpacked=20_000_000_000,
        images=118_287,
    ),
    "val": Archive(
        "zips/val2017.zip",
        "val2017",
        size=815_585_330,
        md5="442b8da7639aecaf257c1dceb8ba8c80",
        unpacked=850_000_000,
        images=5_000,
    ),
}
"""The annotations of both splits, and the images of each. The server publishes no checksums."""


def download(
    root: str | Path,
    splits: Sequence[str] = SPLITS,
    *,
    keep_archives: bool = False,
    archives: Mapping[str, Archive] = COCO_2017,
    waits: Sequence[float] = coco_server.WAITS,
    say: Callable[[str], Any] = coco_server.say_line,
) -> dict[str, int]:
    """Fetch what `root` lacks, so that ``coco:ROOT,SPLIT`` opens; what is complete stays as it is.

    Each archive is fetched to ROOT/NAME (see `coco_server.fetch`). Its folder appears as a whole, when every
    member's CRC and the number of images are right. One process per `root` at a time.

    Args:
        keep_archives: leave the zip files in `root`.
        archives: `annotations`, and one for each split.
        waits: see `coco_server.WAITS`.
        say: takes a line for each step.

    Returns:
        What `check` returns.

    Raises:
        UserError: too little space, a folder that is there in part or cannot be written, a server that does not
            answer or has something else, or wrong bytes, which are removed.
        KeyboardInterrupt: Ctrl-C, with the words that the same command continues.
    """
    root, base = Path(root).expanduser(), coco_server.base_url()
    with coco_server.disk_errors(root):
        wanted = _missing(root, splits, archives)
        root.mkdir(parents=True, exist_ok=True)
        for archive in wanted:
            # Left by a process that was killed.
            shutil.rmtree(_temporary(root, archive), ignore_errors=True)
        _require_space(root, wanted)
    try:
        for archive in wanted:
            path = root / archive.name
            coco_server.fetch(f"{base}/{archive.path}", path, archive.size, archive.md5, waits=waits, say=say)
            say(f"{archive.name}: right; unpacking")
            _unpack(path, root, archive)
            if not keep_archives:
                path.unlink()
    except KeyboardInterrupt:
        raise KeyboardInterrupt("interrupted; what has arrived is kept, the same command continues") from None
    return check(root, splits, archives=archives, say=say)


def check(
    root: str | Path,
    splits: Sequence[str] = SPLITS,
    *,
    archives: Mapping[str, Archive] = COCO_2017,
    say: Callable[[str], Any] = coco_server.say_line,
) -> dict[str, int]:
    """The number of images of each split in `root`, after comparing them with `archives` and the annotations.

    Raises:
        UserError: something is missing, or the images are not those of the annotations.
    """
    root = Path(root).expanduser()
    with coco_server.disk_errors(root):
        missing = _missing(root, splits, archives)
    if missing:
        names, size = ", ".join(archive.folder for archive in missing), sum(archive.size for archive in missing)
        raise UserError(f"{root}: {names} of COCO 2017 missing; add --download to fetch {coco_server.gigabytes(size)}")
    compared = _compared(root)
    for archive in (archives[split] for split in splits):
        annotations = _instances(root, archive)
        status = annotations.stat()
        stamp = [status.st_size, status.st_mtime_ns]
        if compared.get(archive.folder) == stamp:
            continue
        say(f"{root / archive.folder}: comparing with {annotations.name}")
        _compare(root / archive.folder, annotations)
        compared[archive.folder] = stamp
        # Whoever may not write there compares each time.
        with suppress(UserError):
            write_atomic(root / _COMPARED, json.dumps(compared) + "\n")
    return {split: archives[split].images for split in splits}


def _compare(folder: Path, annotations: Path) -> None:
    with coco_server.disk_errors(folder):
        found = _images(folder)
    annotated = {image.get("file_name") for image in read_json(annotations)["images"]}
    if annotated != found:
        raise UserError(
            f"{folder}: not the images of {annotations}: {len(annotated - found)} absent, "
            f"{len(found - annotated)} not annotated; move both folders away and fetch them with --download"
        )


def _compared(root: Path) -> dict[str, Any]:
    """Image folders that were compared with their annotations -> size and time of the annotations then."""
    try:
        return dict(json.loads((root / _COMPARED).read_text()))
    except (OSError, ValueError, TypeError):
        return {}


def _missing(root: Path, splits: Sequence[str], archives: Mapping[str, Archive]) -> list[Archive]:
    """The archives whose folder is not there. UserError for one that is there in part: it may be somebody's."""
    missing = []
    for archive in dict.fromkeys(archives[name] for name in ("annotations", *splits)):
        folder = root / archive.folder
        if not folder.is_dir() or not any(folder.iterdir()):
            missing.append(archive)
        elif archive.images:
            count = len(_images(folder))
            if count != archive.images:
                raise UserError(f"{folder}: {count:,} images instead of {archive.images:,}; move the folder away")
        else:
            absent = [path for split in splits if not (path := _instances(root, archives[split])).is_file()]
            if absent:
                raise UserError(f"{absent[0]}: absent, though other annotations are there; move the folder away")
    return missing


def _instances(root: Path, archive: Archive) -> Path:
    return root / "annotations" / f"instances_{archive.folder}.json"


def _images(folder: Path) -> set[str]:
    return {name for name in os.listdir(folder) if name.endswith(".jpg")}


def _temporary(root: Path, archive: Archive) -> Path:
    return root / f".{archive.folder}.unpacking"


def _require_space(root: Path, wanted: Sequence[Archive]) -> None:
    there = sum(coco_server.bytes_there(root / archive.name) for archive in wanted)
    needed, free = sum(archive.size + archive.unpacked for archive in wanted) - there, shutil.disk_usage(root).free
    if needed > free:
        raise UserError(
            f"{root}: archives and unpacked files need {coco_server.gigabytes(needed)} more, "
            f"{coco_server.gigabytes(free)} are free; free space or choose another --root"
        )


def _unpack(path: Path, root: Path, archive: Archive) -> None:
    """ROOT/folder from the archive `path`, all or nothing; an archive that cannot be used is removed."""
    temporary, folder = _temporary(root, archive), root / archive.folder
    try:
        with coco_server.disk_errors(root):
            _extract(path, temporary, archive)
            if folder.exists():
                folder.rmdir()  # `_missing` found it empty
            os.replace(temporary / archive.folder, folder)
    except (zipfile.BadZipFile, zlib.error, EOFError, RuntimeError) as error:
        coco_server.discard(path, f"damaged archive ({error})")
    finally:
        shutil.rmtree(temporary, ignore_errors=True)


def _extract(path: Path, temporary: Path, archive: Archive) -> None:
    """Unpack into a new folder. BadZipFile for a wrong CRC, a member elsewhere, a wrong number of images."""
    with zipfile.ZipFile(path) as file:
        members = [member for member in file.infolist() if not member.is_dir()]
        for member in members:
            folder, _, name = member.filename.partition("/")
            if folder != archive.folder or "/" in name or "\\" in name or name in ("", ".", ".."):
                raise zipfile.BadZipFile(f"'{member.filename}' is not a file of the folder {archive.folder}")
        (temporary / archive.folder).mkdir(parents=True)
        for member in progress(members, desc=f"unpacking {archive.name}", unit="file", leave=False):
            file.extract(member, temporary)  # checks the CRC
    if archive.images:
        count = len(_images(temporary / archive.folder))
        if count != archive.images:
            raise zipfile.BadZipFile(f"{count:,} images instead of {archive.images:,}")

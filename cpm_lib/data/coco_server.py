"""A file from COCO's server or a mirror: resumed where it broke off, checked by size and md5."""

from __future__ import annotations

import hashlib
import http.client
import os
import re
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from http import HTTPStatus
from pathlib import Path
from typing import Any, NoReturn

from cpm_lib.errors import UserError
from cpm_lib.progress import progress

BASE_URL = "http://images.cocodataset.org"
"""Where the archives are. Not https: the server's certificate is for another name; the md5 guards the content."""

WAITS = (1.0, 2.0, 4.0, 8.0, 16.0, 32.0, 64.0)
"""Seconds before each new try after one that brought nothing; after the last one the download gives up."""

_TIMEOUT = 60.0  # seconds without a byte
_CHUNK = 1 << 20
_TRY_AGAIN = (HTTPStatus.REQUEST_TIMEOUT, HTTPStatus.TOO_EARLY, HTTPStatus.TOO_MANY_REQUESTS)


class _Dropped(Exception):
    """The server or the line failed; another try may help."""


def say_line(text: str) -> None:
    """Print at once: in a log of hours a line must not wait for the buffer to fill."""
    print(text, flush=True)


def base_url() -> str:
    """The environment variable CPM_COCO_URL, else `BASE_URL`. UserError if it is no http address."""
    base = os.environ.get("CPM_COCO_URL") or BASE_URL
    if not base.startswith(("http://", "https://")):
        raise UserError(f"CPM_COCO_URL={base}: not an address; it must start with http:// or https://")
    return base.rstrip("/")


def fetch(
    url: str, path: Path, size: int, md5: str, *, waits: Sequence[float] = WAITS, say: Callable[[str], Any] = say_line
) -> None:
    """Bring the file at `url` to `path`.

    The bytes are collected in `path`.part, which any later call continues, whatever ended this one. A file at
    `path`, whole or half, counts as such bytes too.

    Args:
        size: of the file, bytes.
        md5: of the file, hexadecimal.
        waits: see `WAITS`.
        say: takes a line for each step.

    Raises:
        UserError: no answer, another file on the server, wrong bytes (they are removed), or trouble with the disk.
    """
    part = part_of(path)
    with disk_errors(part):
        if _size(path) > _size(part):
            os.replace(path, part)
    farthest, left = _size(part), iter(waits)
    if farthest < size:
        say(f"{url}: {gigabytes(size)}" + (f", {gigabytes(farthest)} of them are there" if farthest else ""))
    while _size(part) < size:
        try:
            _receive(url, part, size)
        except _Dropped as trouble:
            if _size(part) > farthest:
                farthest, left = _size(part), iter(waits)
            wait = next(left, None)
            if wait is None:
                raise UserError(
                    f"{url}: {trouble}; what has arrived is kept: try again later, or name a mirror with CPM_COCO_URL"
                ) from trouble
            say(f"{path.name}: {trouble}; next try in {wait:g} s")
            time.sleep(wait)
    with disk_errors(part):
        if _size(part) > size:
            discard(part, f"{_size(part):,} bytes instead of {size:,}")
        say(f"{path.name}: computing its md5")
        with open(part, "rb") as file:
            found = hashlib.file_digest(file, lambda: hashlib.md5(usedforsecurity=False)).hexdigest()
        if found != md5:
            discard(part, f"wrong bytes, md5 {found} instead of {md5}")
        os.replace(part, path)


def bytes_there(path: Path) -> int:
    """How much of the file that `fetch` would bring to `path` need not be fetched any more."""
    return max(_size(path), _size(part_of(path)))


def part_of(path: Path) -> Path:
    return path.with_name(f"{path.name}.part")


def discard(path: Path, reason: str) -> NoReturn:
    """Remove a file that cannot be used, and say so in a UserError."""
    path.unlink()
    raise UserError(f"{path}: {reason}; it was removed, the same command fetches it again")


def gigabytes(size: int) -> str:
    return f"{size / 1e9:.2f} GB"


@contextmanager
def disk_errors(path: Path) -> Iterator[None]:
    """Turns trouble with the disk into one line about `path`."""
    try:
        yield
    except OSError as error:
        raise UserError(
            f"{path}: cannot be read or written ({error.strerror or error}); free space or choose another --root"
        ) from error


def _size(path: Path) -> int:
    return path.stat().st_size if path.exists() else 0


def _receive(url: str, part: Path, size: int) -> None:
    """One request: appends to `part`, or writes it anew if the server does not know ranges."""
    with _opened(url, _size(part)) as response:
        start = _start(url, response, _size(part), size)
        bar = progress(total=size, initial=start, desc=part.stem, unit="B", unit_scale=True, leave=False)
        with disk_errors(part), open(part, "ab" if start else "wb") as file, bar:
            while file.tell() <= size and (chunk := _read(response)):
                file.write(chunk)
                bar.update(len(chunk))
    if (arrived := _size(part)) < size:
        raise _Dropped(f"connection lost after {arrived:,} of {size:,} bytes")


def _opened(url: str, start: int) -> http.client.HTTPResponse:
    """The answer to a request for the bytes from `start` on; _Dropped, or UserError if no other try can help."""
    request = urllib.request.Request(url, headers={"Range": f"bytes={start}-"} if start else {})
    try:
        response: http.client.HTTPResponse = urllib.request.urlopen(request, timeout=_TIMEOUT)
    except urllib.error.HTTPError as error:
        answer = f"the server answers {error.code} {error.reason}"
        error.close()
        if error.code in _TRY_AGAIN or error.code >= HTTPStatus.INTERNAL_SERVER_ERROR:
            raise _Dropped(answer) from error
        raise UserError(f"{url}: {answer}; check CPM_COCO_URL") from error
    except (OSError, http.client.HTTPException) as error:
        raise _Dropped(f"no answer ({_words(error)})") from error
    return response


def _start(url: str, response: http.client.HTTPResponse, asked: int, size: int) -> int:
    """The position of the first byte that will come. UserError if the file is not the one wanted."""
    start, total = 0, response.headers.get("Content-Length") or "*"
    if response.status == HTTPStatus.PARTIAL_CONTENT:
        given = re.fullmatch(r"bytes (\d+)-\d+/(\d+|\*)", response.headers.get("Content-Range") or "")
        if given is None or int(given[1]) != asked:
            raise UserError(f"{url}: the server answers another range than asked for; name a mirror with CPM_COCO_URL")
        start, total = asked, given[2]
    if total != "*" and int(total) != size:
        raise UserError(f"{url}: {int(total):,} bytes on the server instead of {size:,}; check CPM_COCO_URL")
    return start


def _read(response: http.client.HTTPResponse) -> bytes:
    try:
        return response.read(_CHUNK)
    except (OSError, http.client.HTTPException) as error:
        raise _Dropped(f"connection lost ({_words(error)})") from error


def _words(error: Exception) -> str:
    cause = getattr(error, "reason", error)  # urllib wraps what the socket says
    return getattr(cause, "strerror", None) or str(cause) or type(cause).__name__

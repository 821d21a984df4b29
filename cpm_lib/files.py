"""Writing files so that a crash or a full disk never leaves half of one, and listing folders."""

from __future__ import annotations

import errno
import os
import tempfile
from collections.abc import Callable
from pathlib import Path

from cpm_lib.errors import UserError


def write_atomic(path: str | Path, content: bytes | str | Callable[[Path], None]) -> Path:
    """Write to a temporary file beside `path`, flush it to disk, then rename it into place.

    Args:
        content: bytes, text, or a function that writes the file at the path it is given.

    Raises:
        UserError: the folder cannot be written or the disk is full; the old file is kept.
    """
    path = Path(path)
    temporary: Path | None = None
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        handle, name = tempfile.mkstemp(prefix=f".{path.name}.", dir=path.parent)
        os.close(handle)
        temporary = Path(name)
        if callable(content):
            content(temporary)
        else:
            temporary.write_bytes(content.encode() if isinstance(content, str) else content)
        with open(temporary, "rb") as file:
            os.fsync(file.fileno())
        # mkstemp creates private files; results are meant to be read by others as usual.
        umask = os.umask(0)
        os.umask(umask)
        temporary.chmod(0o666 & ~umask)
        os.replace(temporary, path)
        temporary = None
    except OSError as error:
        raise UserError(
            f"{path}: cannot be written ({error.strerror or error}); free space or choose another folder"
        ) from error
    finally:
        if temporary is not None:
            temporary.unlink(missing_ok=True)
    return path


def check_writable(path: str | Path) -> None:
    """Whether `write_atomic` will be able to write there, asked before long work whose result it shall hold.

    Raises:
        UserError: it is a folder, or nothing can be written beside it.
    """
    path = Path(path)
    try:
        if path.is_dir():
            raise IsADirectoryError(errno.EISDIR, "it is a folder")
        tempfile.TemporaryFile(dir=nearest_existing(path.parent)).close()
    except OSError as error:
        raise UserError(f"{path}: cannot be written ({error.strerror}); name another file") from error


def check_folder(folder: Path, hint: str) -> None:
    """Make a folder if it is missing, and refuse it unless files can be made in it.

    Raises:
        UserError: names the folder; `hint` says how to mend it.
    """
    existing = nearest_existing(folder)
    if not existing.is_dir():
        raise UserError(f"{folder}: {existing} is a file, not a folder; {hint}")
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=folder):
            pass
    except OSError as error:
        raise UserError(f"{folder}: cannot be written ({error.strerror or error}); {hint}") from error


def nearest_existing(path: Path) -> Path:
    """`path` itself, or the nearest folder above it that is there."""
    return next(place for place in (path, *path.absolute().parents) if place.exists())


def listing(folder: Path) -> list[str]:
    """Names in a folder, sorted; none if there is no such folder.

    Raises:
        UserError: the folder is there but cannot be read.
    """
    try:
        return sorted(os.listdir(folder))
    except (FileNotFoundError, NotADirectoryError):
        return []
    except OSError as error:
        raise UserError(f"{folder}: cannot be read ({error.strerror}); change its permissions") from error

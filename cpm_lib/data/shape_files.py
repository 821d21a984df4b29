"""Writing `shapes` data sets in COCO layout, in several processes, and opening them from a cache."""

from __future__ import annotations

import dataclasses
import json
import multiprocessing
import os
import shutil
import sys
import tempfile
import zlib
from collections.abc import Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from cpm_lib.data.dataset import DetectionDataset
from cpm_lib.data.shapes import CLASSES, SPLITS, VERSION, ShapesConfig, generate, knobs_hash, profile_config
from cpm_lib.errors import UserError
from cpm_lib.files import write_atomic
from cpm_lib.progress import progress
from cpm_lib.typed import nearest

CHUNK = 50
"""Images per task of a worker process."""

Objects = list[dict[str, Any]]
"""The annotated objects of one image."""


def write_shapes(
    profile: str,
    out: str | Path,
    seed: int = 0,
    *,
    splits: Sequence[str] = ("train", "val"),
    config: ShapesConfig | None = None,
    workers: int | None = None,
) -> Path:
    """Write splits of a profile as ``out/{split}/000001.png`` and ``out/annotations_{split}.json``.

    The files do not depend on the number of workers. A split that is already there with the same
    knobs and seed is kept. Images are made in a temporary folder beside `out` and renamed at the end.

    Args:
        config: other knobs than the profile's.
        workers: processes; None takes one per available core, 0 or 1 works in this process.

    Returns:
        `out`.

    Raises:
        UserError: unknown profile or split, `out` cannot be written, or it holds other data.
    """
    config = config or profile_config(profile)
    out = Path(out)
    for split in splits:
        if split not in SPLITS:
            raise UserError(f"shapes: unknown split '{split}'{nearest(split, SPLITS)}")
        info = _info(profile, config, seed, split)
        annotations = out / f"annotations_{split}.json"
        if annotations.exists():
            if _read_info(annotations) != info:
                raise UserError(f"{annotations}: not of shapes:{profile} with seed {seed}; choose another folder")
            continue
        if (out / split).exists() and not _is_ours(out / split, split, config, seed):
            raise UserError(f"{out / split}: not of shapes:{profile} with seed {seed}; choose another folder")
        _write_split(out, split, config, seed, info, workers)
    return out


def open_shapes(text: str, *, strict: bool = False) -> DetectionDataset:
    """Open ``PROFILE[:SPLIT]`` (default split: train), generating it into the cache if needed.

    The cache is ``$CPM_CACHE``, else ``data/cache`` where a ``data`` folder is, else ``~/.cache/cpm_lib``.
    Its key holds the profile and a hash of all knobs, so changed knobs never read old images.

    Raises:
        UserError: unknown profile or split; the nearest one is suggested.
    """
    profile, _, split = text.partition(":")
    split = split or "train"
    config = profile_config(profile)
    folder = cache_folder() / f"shapes-{profile}-{knobs_hash(config, 0)}"
    write_shapes(profile, folder, splits=[split])
    return read_shapes(folder, split, name=f"shapes:{profile}:{split}", strict=strict)


def read_shapes(folder: str | Path, split: str, *, name: str = "", strict: bool = False) -> DetectionDataset:
    """Open one split that `write_shapes` wrote, with the area limits of its generator."""
    path = Path(folder) / f"annotations_{split}.json"
    try:
        coco = json.loads(path.read_text())
        low, high = coco["info"]["area_limits"]
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise UserError(f"{path}: not an annotation file of shapes ({error!r}); delete the folder") from error
    name = name or str(path)
    return DetectionDataset(name, coco, path.parent / split, where=path, area_limits=(low, high), strict=strict)


def cache_folder() -> Path:
    """Where generated data sets live; see `open_shapes`."""
    chosen = os.environ.get("CPM_CACHE")
    if chosen:
        return Path(chosen).expanduser()
    local = Path("data")
    return local / "cache" if local.is_dir() else Path.home() / ".cache" / "cpm_lib"


def available_cores() -> int:
    """Cores this process may use, at least 1."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def _info(profile: str, config: ShapesConfig, seed: int, split: str) -> dict[str, Any]:
    info = {
        "description": f"shapes:{profile}:{split}",
        "profile": profile,
        "split": split,
        "seed": seed,
        "version": VERSION,
        "area_limits": [share * config.side for share in config.area_limits],
        "knobs": dataclasses.asdict(config),
    }
    return json.loads(json.dumps(info))


def _read_info(path: Path) -> Any:
    try:
        return json.loads(path.read_text()).get("info")
    except (OSError, ValueError, AttributeError):
        return None


def _is_ours(folder: Path, split: str, config: ShapesConfig, seed: int) -> bool:
    """Whether images without an annotation file are the rest of an interrupted or parallel run."""
    names = [_file_name(index) for index in range(config.counts[SPLITS.index(split)])]
    if not folder.is_dir() or sorted(os.listdir(folder)) != names:
        return False
    with Image.open(folder / names[0]) as first:
        return np.array_equal(np.asarray(first), generate(config, seed, split, 0)[0])


def _file_name(index: int) -> str:
    return f"{index + 1:06d}.png"


def _write_split(
    out: Path, split: str, config: ShapesConfig, seed: int, info: dict[str, Any], workers: int | None
) -> None:
    with _temporary_folder(out) as temporary:
        try:
            annotations = _generate_all(temporary, split, config, seed, workers)
            temporary.chmod(0o755)
            # Another process may have been faster. Its images are the same, so these can go.
            if not (out / split).exists():
                os.replace(temporary, out / split)
        except OSError as error:
            if not _is_ours(out / split, split, config, seed):
                reason = error.strerror or error
                raise UserError(f"{out}: cannot be written ({reason}); free space or choose another folder") from error
    size = {"width": config.side, "height": config.side}
    flat = [(index, entry) for index, objects in enumerate(annotations, start=1) for entry in objects]
    coco = {
        "info": info,
        "images": [{"id": i + 1, "file_name": _file_name(i), **size} for i in range(len(annotations))],
        "annotations": [{"id": i, "image_id": image, "iscrowd": 0, **o} for i, (image, o) in enumerate(flat, start=1)],
        "categories": [{"id": number, "name": name} for number, name in enumerate(CLASSES, start=1)],
    }
    write_atomic(out / f"annotations_{split}.json", json.dumps(coco))


@contextmanager
def _temporary_folder(out: Path) -> Iterator[Path]:
    """A private folder inside `out`, gone at the end unless it was renamed."""
    try:
        out.mkdir(parents=True, exist_ok=True)
        temporary = Path(tempfile.mkdtemp(prefix=".making-", dir=out))
    except OSError as error:
        raise UserError(f"{out}: cannot be written ({error.strerror or error}); choose another folder") from error
    try:
        yield temporary
    finally:
        shutil.rmtree(temporary, ignore_errors=True)


def _generate_all(folder: Path, split: str, config: ShapesConfig, seed: int, workers: int | None) -> list[Objects]:
    """Write all images of a split; the objects of each, in image order."""
    count = config.counts[SPLITS.index(split)]
    chunks = [range(start, min(start + CHUNK, count)) for start in range(0, count, CHUNK)]
    workers = min(available_cores() if workers is None else workers, len(chunks))
    done: dict[int, list[Objects]] = {}
    with progress(total=count, desc=f"drawing shapes ({split})", unit="image") as bar:
        if workers <= 1:
            for chunk in chunks:
                done[chunk.start] = _write_chunk(folder, split, config, seed, chunk)
                bar.update(len(chunk))
        else:
            # Workers use only numpy and Pillow, so forking is safe, starts at once and, unlike spawning,
            # needs no __main__ guard in the caller's script.
            method = "fork" if sys.platform.startswith("linux") else "spawn"
            with ProcessPoolExecutor(workers, mp_context=multiprocessing.get_context(method)) as pool:
                futures = {pool.submit(_write_chunk, folder, split, config, seed, chunk): chunk for chunk in chunks}
                try:
                    for future in as_completed(futures):
                        chunk = futures[future]
                        done[chunk.start] = future.result()
                        bar.update(len(chunk))
                except BaseException:
                    pool.shutdown(wait=True, cancel_futures=True)
                    raise
    return [objects for start in sorted(done) for objects in done[start]]


def _write_chunk(folder: Path, split: str, config: ShapesConfig, seed: int, indices: range) -> list[Objects]:
    annotations = []
    for index in indices:
        pixels, objects = generate(config, seed, split, index)
        # Noise leaves nothing for a match search to find: Huffman coding alone is smaller and faster.
        Image.fromarray(pixels).save(folder / _file_name(index), compress_level=1, compress_type=zlib.Z_HUFFMAN_ONLY)
        annotations.append(objects)
    return annotations

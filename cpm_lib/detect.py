"""A detector on picture files: drawn pictures and `detections.json`."""

from __future__ import annotations

import glob
import itertools
import json
import math
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from PIL import Image, ImageDraw, ImageFont
from torch import Tensor, nn
from torchvision.transforms.v2 import functional as F

from cpm_lib.data.dataset import read_image
from cpm_lib.errors import UserError
from cpm_lib.evaluation import predict
from cpm_lib.files import write_atomic
from cpm_lib.progress import progress

SUFFIXES = (".jpg", ".jpeg", ".png", ".webp", ".bmp", ".gif", ".tif", ".tiff", ".ppm", ".pgm")
# Okabe and Ito's colours, which remain distinct for colour-blind readers, without their black.
COLOURS = ("#e69f00", "#56b4e9", "#009e73", "#f0e442", "#0072b2", "#d55e00", "#cc79a7")
DRAWN_SIDE = 512
"""Pictures with a shorter long side are drawn enlarged, so that the text is readable."""


class Pictures(torch.utils.data.Dataset[tuple[Tensor, dict[str, Any]]]):
    """Picture files as an unannotated data set; `image_id` is the position in `files`."""

    def __init__(self, files: Sequence[Path]) -> None:
        self.files = list(files)
        self.image_ids = list(range(len(files)))
        self.sizes: dict[int, tuple[int, int]] = {}
        """(width, height) of the pictures read so far, after EXIF rotation."""

    def __len__(self) -> int:
        return len(self.files)

    def __getitem__(self, index: int) -> tuple[Tensor, dict[str, Any]]:
        """Image float32 [3, H, W] in 0..1.

        Raises:
            UserError: the file is missing or broken.
        """
        image = read_image(self.files[index])
        self.sizes[index] = (image.shape[2], image.shape[1])
        return image, {"image_id": index}


def find(patterns: Sequence[str]) -> list[Path]:
    """Picture files meant by files, folders (their pictures, not those of sub-folders) and globs.

    Raises:
        UserError: a file is missing, or a folder or glob has no picture.
    """
    files: list[Path] = []
    for pattern in patterns:
        path = Path(pattern)
        meant = [path] if path.exists() or not glob.has_magic(pattern) else map(Path, sorted(glob.glob(pattern)))
        found = [picture for entry in meant for picture in _pictures(entry, named=entry == path)]
        if not found:
            raise UserError(f"{pattern}: no picture here ({', '.join(SUFFIXES)})")
        files += found
    return list(dict.fromkeys(files))


def _pictures(path: Path, *, named: bool) -> list[Path]:
    """The pictures of a folder, or the file itself; of files found by a glob only pictures are meant."""
    if path.is_dir():
        return sorted(entry for entry in path.iterdir() if entry.suffix.lower() in SUFFIXES)
    if not path.is_file():
        raise UserError(f"{path}: no such image")
    return [path] if named or path.suffix.lower() in SUFFIXES else []


def detect(
    model: nn.Module,
    classes: Sequence[str],
    files: Sequence[Path],
    out: Path,
    *,
    score: float = 0.3,
    device: torch.device | str | None = None,
) -> list[dict[str, Any]]:
    """Find objects in `files`; write one drawn picture each, and `detections.json` with all of them.

    Nothing is written before every picture was read, and never over a picture that was read.

    Args:
        classes: foreground names; label k is `classes[k - 1]`.
        out: folder, made if missing.
        score: lowest fused score that is drawn and listed, 0..1.

    Returns:
        The content of `detections.json`: boxes xyxy in pixels of the file as displayed.

    Raises:
        UserError: a picture is broken, `out` cannot be written, or a drawn picture would replace one of `files`.
    """
    targets = [out / name for name in _names(files)]
    own = {path.resolve() for path in files}
    if taken := next((target for target in targets if target.resolve() in own), None):
        raise UserError(f"{taken}: is one of the pictures to look at; give another --out, so that it is not replaced")
    pictures = Pictures(files)
    results: list[dict[str, Any]] = []
    for index, found in enumerate(predict(model, pictures, batch_size=1, device=device)):
        width, height = pictures.sizes[index]
        kept = [_entry(found, i, classes) for i in range(len(found["boxes"])) if float(found["scores"][i]) >= score]
        results.append({"file": str(files[index]), "width": width, "height": height, "detections": kept})
    for path, target, result in zip(progress(files, desc="draw", unit="image"), targets, results, strict=True):
        drawn = draw(read_image(path), result["detections"])
        write_atomic(target, lambda temporary, drawn=drawn: drawn.save(temporary, format="PNG"))  # type: ignore[misc]
    write_atomic(out / "detections.json", json.dumps(results, indent=1) + "\n")
    return results


def draw(image: Tensor, detections: Sequence[dict[str, Any]]) -> Image.Image:
    """The picture with boxes, class names and scores; the best detection is drawn last, on top.

    Args:
        image: float [3, H, W] in 0..1.
        detections: with `box` (xyxy, pixels), `label`, `class`, `score`.
    """
    picture = F.to_pil_image(image)
    scale = max(1, math.ceil(DRAWN_SIDE / max(picture.size)))
    picture = picture.resize((picture.width * scale, picture.height * scale), Image.Resampling.BICUBIC)
    line = max(2, round(max(picture.size) / 320))
    font = ImageFont.load_default(max(13, round(max(picture.size) / 45)))
    pen = ImageDraw.Draw(picture)
    for detection in sorted(detections, key=lambda d: d["score"]):
        colour = COLOURS[(detection["label"] - 1) % len(COLOURS)]
        x1, y1, x2, y2 = (scale * value for value in detection["box"])
        pen.rectangle((min(x1, x2), min(y1, y2), max(x1, x2), max(y1, y2)), outline=colour, width=line)
        text = f"{detection['class']} {detection['score']:.2f}"
        left, top, right, bottom = pen.textbbox((0, 0), text, font=font)
        width, height = right - left + 2 * line, bottom - top + 2 * line
        # Above the box where there is room, else inside it; never beyond the picture.
        x = min(max(x1, 0), max(picture.width - width, 0))
        y = y1 - height if y1 >= height else max(y1, 0)
        pen.rectangle((x, y, x + width, y + height), fill=colour)
        pen.text((x + line - left, y + line - top), text, fill="black", font=font)
    return picture


def _entry(found: dict[str, Tensor], index: int, classes: Sequence[str]) -> dict[str, Any]:
    label = int(found["labels"][index])
    parts = {}
    for key, source in (
        ("score", "scores"),
        ("cls_score", "cls_scores"),
        ("iou_score", "iou_scores"),
        ("rsm_score", "rsm_scores"),
    ):
        value = float(found[source][index]) if source in found else None
        parts[key] = value if value is not None and math.isfinite(value) else None
    return {"box": found["boxes"][index].tolist(), "label": label, "class": classes[label - 1], **parts}


def _names(files: Sequence[Path]) -> list[str]:
    """Names of the drawn pictures: each file's own, with a number where another one has it already."""
    stems = Counter(path.stem for path in files)
    taken = {stem for stem, number in stems.items() if number == 1}
    names = []
    for path in files:
        name = path.stem
        if stems[name] > 1:
            name = next(f"{path.stem}-{n}" for n in itertools.count(1) if f"{path.stem}-{n}" not in taken)
            taken.add(name)
        names.append(f"{name}.png")
    return names

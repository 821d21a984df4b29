"""Decoding images of any kind into the tensors the detector takes."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch
from PIL import Image, ImageOps
from torch import Tensor
from torchvision.transforms.v2 import functional as F

from cpm_lib.errors import UserError


def read_image(path: str | Path, size: tuple[int, int] | None = None) -> Tensor:
    """Decode any Pillow image as float32 [3, H, W] RGB in 0..1: grey, palette, CMYK, alpha, 16 bit.

    Args:
        size: (width, height) the annotations speak of. The EXIF rotation is applied unless only the
            unrotated image has this size.

    Raises:
        UserError: absent, broken or cut-off file, or another size than `size`.
    """
    try:
        with Image.open(path) as file:
            file.load()
            rotated = ImageOps.exif_transpose(file)
            if size is not None and rotated.size != size and file.size == size:
                rotated = file.copy()
    except FileNotFoundError as error:
        raise UserError(f"{path}: no such image") from error
    except (OSError, ValueError, SyntaxError, Image.DecompressionBombError) as error:
        raise UserError(f"{path}: cannot be decoded ({error}); replace the file") from error
    if size is not None and rotated.size != size:
        got, wanted = ("{} x {}".format(*pair) for pair in (rotated.size, size))
        raise UserError(f"{path}: the image is {got} pixels but its annotation says {wanted}; mend one of them")
    if rotated.mode.startswith("I"):
        # Pillow would cut 16-bit values off at 255 instead of scaling them.
        grey = np.asarray(rotated, dtype=np.float32) / 65535.0
        return torch.from_numpy(grey).clamp(0, 1).expand(3, -1, -1).contiguous()
    return F.to_dtype(F.pil_to_tensor(rotated.convert("RGB")), torch.float32, scale=True)


def header_size(path: Path) -> tuple[int, int]:
    """(width, height) after EXIF rotation, reading only the header."""
    try:
        with Image.open(path) as file:
            turned = file.getexif().get(0x0112, 1) >= 5
            return (file.height, file.width) if turned else (file.width, file.height)
    except (OSError, ValueError, SyntaxError) as error:
        raise UserError(f"{path}: cannot be decoded ({error}); replace the file") from error

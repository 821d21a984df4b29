"""Data sets: procedural shapes, COCO and VOC, all behind one interface."""

from __future__ import annotations

from cpm_lib.data.coco import open_coco
from cpm_lib.data.dataset import DetectionDataset, read_image
from cpm_lib.data.shape_files import open_shapes, write_shapes
from cpm_lib.data.voc import open_voc
from cpm_lib.errors import UserError
from cpm_lib.typed import nearest

__all__ = ["GRAMMAR", "DetectionDataset", "open_source", "read_image", "write_shapes"]

GRAMMAR = "shapes:PROFILE[:SPLIT], coco:ROOT,SPLIT, coco:ANN.json,IMAGE_DIR or voc:ROOT[,SPLIT]"
_READERS = {"shapes": open_shapes, "coco": open_coco, "voc": open_voc}


def open_source(text: str, *, strict: bool = False) -> DetectionDataset:
    """Open a data set by its source text.

    Args:
        text: ``shapes:PROFILE[:SPLIT]`` (made on demand), ``coco:ROOT,SPLIT`` (2017 layout),
            ``coco:ANN.json,IMAGE_DIR`` or ``voc:ROOT[,SPLIT]``; the split is ``train`` if not given.
        strict: refuse bad boxes instead of dropping them.

    Raises:
        UserError: the text does not follow the grammar, or the data cannot be used.
    """
    kind, colon, rest = text.partition(":")
    if not colon or not rest:
        raise UserError(f"'{text}' is not a data source; use {GRAMMAR}")
    if kind not in _READERS:
        raise UserError(f"'{text}': unknown kind of data '{kind}'{nearest(kind, list(_READERS))}")
    try:
        return _READERS[kind](rest, strict=strict)
    except PermissionError as error:
        raise UserError(f"{error.filename}: cannot be read ({error.strerror}); change its permissions") from error

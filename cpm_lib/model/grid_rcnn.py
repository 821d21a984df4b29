"""Grid R-CNN: the point-guided baseline, one grid stage scored by the classification branch alone."""

from __future__ import annotations

from cpm_lib.config import Config
from cpm_lib.errors import UserError
from cpm_lib.model.cpm_rcnn import CPMRCNN


class GridRCNN(CPMRCNN):
    """CPM R-CNN with one stage and without ISM and RSM, as a class of its own name.

    Three forms by `config.grid`: Plus without fusion (the paper's baseline, Table 1), Plus with fusion
    (as in mmdetection), and `head="original"` (CVPR 2019: full maps, dilated convolutions, fusion).
    """

    def __init__(self, config: Config, num_classes: int) -> None:
        if config.cascade.stages != 1 or config.scoring.ism or config.scoring.rsm:
            raise UserError(f"{config.preset}: Grid R-CNN has one stage and neither ISM nor RSM; use CPM R-CNN instead")
        super().__init__(config, num_classes)

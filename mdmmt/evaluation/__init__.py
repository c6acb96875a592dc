"""Evaluation: how well a model finds the video of a caption, and the captions of a video.

    captions = mdmmt.evaluation.read_captions("MSRVTT_JSFUSION_test.csv")
    features = mdmmt.features.FeatureFolder("features/")
    result = mdmmt.evaluation.evaluate(model, captions, features, "single")
    print(mdmmt.evaluation.table([result]))

`metrics` needs embeddings alone; `runs` makes them with a model; `results` and `plots` show them.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from .. import lazy
from ..datasets import Caption, read_captions
from .metrics import (
    PROTOCOLS,
    Difference,
    Galleries,
    Ranks,
    compare,
    intervals,
    make_galleries,
    ranks,
    summary,
)
from .plots import check_plot, plot
from .results import (
    Result,
    compare_results,
    comparison_table,
    read_results,
    table,
    write_results,
)

if TYPE_CHECKING:
    from ..datasets import CaptionIndex, IndexedCaption, read_caption_indexes
    from .runs import ablate, evaluate
else:  # spares the metrics torch
    __getattr__, __dir__ = lazy.names_of(
        __name__,
        {
            ".runs": ("ablate", "evaluate"),
            "..datasets": ("CaptionIndex", "IndexedCaption", "read_caption_indexes"),
        },
    )

__all__ = [
    "PROTOCOLS",
    "Caption",
    "CaptionIndex",
    "Difference",
    "Galleries",
    "IndexedCaption",
    "Ranks",
    "Result",
    "ablate",
    "check_plot",
    "compare",
    "compare_results",
    "comparison_table",
    "evaluate",
    "intervals",
    "make_galleries",
    "plot",
    "ranks",
    "read_caption_indexes",
    "read_captions",
    "read_results",
    "summary",
    "table",
    "write_results",
]

"""The features of a video: one type, and the one check of it.

Shape notation: n features of an expert, in the order of time, d width of a feature.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from ..errors import InputError, InputTypeError

MAX_ABS_FEATURE = 1e15  # sums of squares of much greater numbers overflow float32
BAD_VALUES = (
    f"holds NaN, infinity or more than {MAX_ABS_FEATURE:g}, expected finite float32 numbers"
)


@dataclass(frozen=True, eq=False)
class ExpertFeatures:
    """The features of one expert in one video.

    Any array of real numbers is taken; arrays of the stated types are not copied.

    Args:
        values: (n, d) float32.
        times_s: (n, 2) float64, the second at which each feature begins and the one at which it
            ends, counted from the beginning of the video. NaN means that the time is unknown.

    Raises:
        InputError: the shapes do not fit together.
        InputTypeError: an argument is not an array of real numbers.
    """

    values: NDArray[np.float32]
    times_s: NDArray[np.float64]

    def __post_init__(self) -> None:
        object.__setattr__(self, "values", _numbers(self.values, np.float32, "values"))
        object.__setattr__(self, "times_s", _numbers(self.times_s, np.float64, "times_s"))
        if self.values.ndim != 2 or self.times_s.shape != (len(self.values), 2):
            raise InputError(
                f"values have the shape {self.values.shape} and times_s {self.times_s.shape}, "
                "expected (n, d) and (n, 2)"
            )

    def __len__(self) -> int:
        return len(self.values)

    def __getitem__(self, part: slice) -> ExpertFeatures:
        """A view of consecutive features."""
        return ExpertFeatures(self.values[part], self.times_s[part])

    @property
    def have_times(self) -> bool:
        """Whether the times of all features are known."""
        return not np.isnan(self.times_s).any()

    def check(self, dim: int, where: str) -> None:
        """Raise unless a model with features of this width can take them.

        Args:
            dim: the width d that the model expects.
            where: the subject of the message, such as "video 3, expert 'CLIP'".

        Raises:
            InputError: another width, NaN, infinity, or a number beyond `MAX_ABS_FEATURE`.
        """
        if self.values.shape[1] != dim:
            raise InputError(f"{where}: features are {self.values.shape}, expected (n, {dim})")
        bad = first_bad(self.values)
        if bad is not None:
            raise InputError(f"{where}: token {bad} {BAD_VALUES}")


VideoFeatures = Mapping[str, ExpertFeatures]  # by expert; an expert without features is left out


def first_bad(values: NDArray[np.float32] | Tensor) -> int | None:
    """The first of n features (n, d) that no model can take (see `BAD_VALUES`), if there is one."""
    # Most features are good, and the extremes are cheaper than a mask. NaN spreads to both.
    ends = (float(values.min()), float(values.max())) if len(values) else ()
    if all(abs(end) <= MAX_ABS_FEATURE for end in ends):
        return None
    good: Any = ((values >= -MAX_ABS_FEATURE) & (values <= MAX_ABS_FEATURE)).all(1)
    return good.tolist().index(False)


def _numbers(value: Any, dtype: type[np.floating], name: str) -> NDArray[Any]:
    array = np.asanyarray(value)  # a memory map stays one
    if array.dtype.kind not in "fiub":
        raise InputTypeError(f"{name} are {array.dtype}, expected real numbers")
    with np.errstate(over="ignore"):  # `check` refuses the infinity that a huge float64 becomes
        return array.astype(dtype, copy=False)

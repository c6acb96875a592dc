"""Where the tokens of a batch are in the table, and in the packing."""

from __future__ import annotations

import numpy as np
from fast_towers import make_video
from tiny import TINY

from mdmmt.fast.attention import SequenceGroup
from mdmmt.fast.packing import count_tokens, pack, packed_shapes


def test_pack_lays_out_the_example_of_the_module():
    index, output_rows, groups = pack(np.array([[2, 0], [1, 2]]))
    assert index.tolist() == [6, 0, 1, 3, 4] + [0, 2, 5, 7, 8, 9]
    assert output_rows.tolist() == [2, 0] + [6, 8]
    assert groups == [SequenceGroup(1, tokens=5, masked=1), SequenceGroup(1, tokens=6, masked=0)]


def test_pack_groups_neighbours_of_one_shape():
    groups = pack(np.array([[2, 0], [0, 2], [1, 1], [1, 0]])).groups
    assert groups == [SequenceGroup(2, 5, 1), SequenceGroup(1, 5, 0), SequenceGroup(1, 4, 1)]


def test_count_tokens_counts_absent_experts_as_zero():
    counts = count_tokens([make_video((2, 0, 3)), make_video((0, 1, 0))], TINY.video.experts)
    assert counts.tolist() == [[2, 0, 3], [0, 1, 0]]
    assert packed_shapes(counts) == [(9, 1), (5, 2)]

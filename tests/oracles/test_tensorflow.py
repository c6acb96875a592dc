"""TensorFlow's checkpoint of VGGish, as TensorFlow itself writes it, in both of its formats."""

import numpy as np
import pytest
import tensorflow as tf
from tensorflow_vggish import variables

from mdmmt.errors import WeightsError
from mdmmt.experts.vggish import VggishExpert, from_tensorflow


@pytest.mark.parametrize("version", [1, 2])
def test_load_reads_a_checkpoint(version, tmp_path):
    given = variables()
    v1 = tf.compat.v1
    with tf.Graph().as_default(), v1.Session() as session:
        for name, value in given.items():
            v1.get_variable(name, initializer=value)
        session.run(v1.global_variables_initializer())
        kind = v1.train.SaverDef.V1 if version == 1 else v1.train.SaverDef.V2
        saver = v1.train.Saver(write_version=kind)
        saver.save(session, str(tmp_path / "vggish_model.ckpt"), write_meta_graph=False)
    file = "vggish_model.ckpt" if version == 1 else "vggish_model.ckpt.index"
    assert (tmp_path / file).is_file()
    state = VggishExpert.read(VggishExpert.find(tmp_path)).state_dict()
    wanted = from_tensorflow(given, tmp_path)
    assert all(np.array_equal(state[name], wanted[name]) for name in wanted)


def test_load_refuses_a_damaged_checkpoint(tmp_path):
    (tmp_path / "vggish_model.ckpt").write_bytes(b"no checkpoint" * 100)
    with pytest.raises(WeightsError, match=r"vggish_model\.ckpt"):
        VggishExpert.load(tmp_path)

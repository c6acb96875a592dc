"""VIDEO by OpenVINO: equal to torch, and close to it in 8 bits."""

import os
import signal
import sys
from concurrent.futures import ThreadPoolExecutor
from multiprocessing import get_context
from subprocess import Popen, run

import numpy as np
import pytest
import seeded
import torch
from closeness import check_apart, relative, shown_clips, unchanged_neighbours
from fast_towers import CPU, computing_with, on_x86
from plain_csn import PlainCSN, lively, lively_experts, noise, normalised
from torch.nn import functional as F

from mdmmt.errors import InputError, MissingDependency
from mdmmt.experts.ircsn import MEAN, IrCSN, PublishedIrCSN, VideoExpert
from mdmmt.kernels import cpu

pytestmark = [on_x86, pytest.mark.slow]


def needs_vnni() -> None:
    if not cpu.has_instructions("avx512_vnni"):
        pytest.skip("this processor has no AVX512-VNNI, so 'int8' is refused")


@pytest.fixture(scope="module")
def plain() -> PlainCSN:
    return lively(normalised(noise(4, 8, 32, 32)))


def published(plain: PlainCSN) -> PublishedIrCSN:
    network = PublishedIrCSN()
    network.load_state_dict(plain.state_dict())
    return network.eval()


@pytest.fixture(scope="module")
def expert(plain) -> VideoExpert:
    return VideoExpert(published(plain), CPU)


@pytest.mark.parametrize("size", [(1, 1, 33, 47), (2, 9, 40, 64), (3, 4, 17, 17)])
def test_features_equal_the_plain_network(plain, expert, size):
    frames = noise(*size)
    before = frames.clone()
    with torch.inference_mode():
        theirs = plain(normalised(frames)).numpy()
    features = expert.features(frames.numpy())
    assert features.shape == (size[0], 2048) and features.dtype == np.float32
    assert relative(features, theirs) <= 1e-5
    assert torch.equal(frames, before)
    assert "int8" not in expert.version


def test_features_of_a_second_equal_those_of_torch(plain, expert, monkeypatch):
    frames = seeded.pictures(1, 32, 224)[None]
    features = expert.features(frames)
    monkeypatch.setattr(cpu, "has_openvino", lambda device: False)
    without = VideoExpert(published(plain), CPU)
    assert isinstance(without.network, IrCSN)
    assert relative(features, without.features(frames)) <= 1e-5


@pytest.mark.parametrize("precision", ["exact", "int8"])
def test_features_are_the_same_for_any_number_of_threads(plain, precision):
    if precision == "int8":
        needs_vnni()
    expert = VideoExpert(published(plain), CPU, precision=precision)
    clips = noise(5, 4, 16, 16).numpy()
    alone = np.concatenate([expert.features(one[None]) for one in clips])
    for threads in (1, 2, 3, 8):
        with computing_with(threads):
            assert np.array_equal(expert.features(clips), alone)


def test_features_of_several_threads_do_not_mix(expert):
    clips = noise(24, 4, 16, 16).numpy()
    wanted = expert.features(clips)
    with ThreadPoolExecutor(4) as pool:
        parts = list(pool.map(expert.features, np.split(clips, 8)))
    assert np.array_equal(np.concatenate(parts), wanted)


@pytest.mark.skipif(not hasattr(os, "fork"), reason="Windows has no fork")
@pytest.mark.filterwarnings("ignore:.*multi-threaded.*fork")
def test_forked_child_computes_after_its_parent(expert):
    clips = noise(3, 4, 16, 16).numpy()
    wanted = expert.features(clips)
    receiver, sender = get_context("fork").Pipe(duplex=False)
    child = get_context("fork").Process(target=lambda: sender.send(expert.features(clips)))
    with expert.network.lock:  # another thread may compile at that moment
        child.start()
    try:
        assert receiver.poll(60)
        assert np.array_equal(receiver.recv(), wanted)
        child.join(30)
        assert child.exitcode == 0
    finally:
        child.kill()
        child.join()
    assert np.array_equal(expert.features(clips), wanted)


@pytest.mark.skipif(not hasattr(os, "fork"), reason="Windows has no fork")
@pytest.mark.parametrize("use", ["pass", "expert = None", "expert.features(clips)"])
def test_forked_child_ends(use):
    """By the interpreter's own end, which the children of multiprocessing skip."""
    code = f"""
import os, sys
from mdmmt.experts.ircsn import PublishedIrCSN, VideoExpert
import numpy as np, torch
expert = VideoExpert(PublishedIrCSN().eval(), torch.device("cpu"))
clips = np.zeros((3, 2, 16, 16, 3), np.uint8)
expert.features(clips)
child = os.fork()
if child:
    sys.exit(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]))
{use}
sys.exit(7)
"""
    process = Popen([sys.executable, "-W", "ignore", "-c", code], start_new_session=True)
    try:
        assert process.wait(60) == 7
    finally:
        if process.poll() is None:
            os.killpg(process.pid, signal.SIGKILL)


def test_int8_keeps_clips_apart():
    needs_vnni()
    clips = shown_clips(40, frames=32, size=224)
    exact, rounded = lively_experts(clips, CPU, "exact", "int8")
    wanted, features = exact.features(clips), rounded.features(clips)
    assert "int8" in rounded.version and "int8" not in exact.version
    check_apart(wanted, features, 0.99, 0.98)
    assert unchanged_neighbours(wanted, features) >= 0.97
    assert np.array_equal(features[[5, 3]], rounded.features(clips[[5, 3]]))  # in any batch


def test_int8_takes_channels_that_are_always_0():
    """Some channels of trained networks are: their norm says no deviation."""
    needs_vnni()
    frames = noise(4, 16, 64, 64)
    plain = lively(normalised(frames))
    for block in [*plain.layer2, *plain.layer3]:
        for norm in (block.conv1[1], block.conv2[1]):
            norm.weight.data[3], norm.bias.data[3] = 0, 0
    exact, rounded = (
        VideoExpert(published(plain), CPU, precision=name) for name in ("exact", "int8")
    )
    wanted, features = (expert.features(frames.numpy()) for expert in (exact, rounded))
    difference = np.square(features - wanted).mean() / np.square(wanted).mean()
    assert difference <= 0.05


def test_torch_takes_the_place_of_an_openvino_that_cannot_be_imported(plain, monkeypatch, caplog):
    monkeypatch.delitem(sys.modules, "mdmmt.experts.ircsn_openvino", raising=False)
    monkeypatch.setitem(sys.modules, "openvino", None)
    monkeypatch.setattr(cpu, "has_openvino", lambda device: True)
    expert = VideoExpert(published(plain), CPU)
    assert isinstance(expert.network, IrCSN)
    assert "OpenVINO cannot be used, torch takes its place" in caplog.text
    with pytest.raises(InputError, match=r"'int8', but OpenVINO is damaged .*reinstall openvino"):
        VideoExpert(published(plain), CPU, precision="int8")


def test_int8_without_openvino_is_refused(plain, monkeypatch):
    monkeypatch.setattr(cpu, "has_openvino", lambda device: False)
    with pytest.raises(MissingDependency, match=r"'int8' .* pip install 'mdmmt\[openvino\]'"):
        VideoExpert(published(plain), CPU, precision="int8")


def test_import_reports_nothing(tmp_path):
    """OpenVINO's telemetry keeps a number for each user in the home folder, and sends it."""
    code = "import mdmmt.experts.ircsn_openvino as it, sys; assert it.openvino.Core()"
    environment = os.environ | {"HOME": str(tmp_path), "USERPROFILE": str(tmp_path)}
    run([sys.executable, "-c", code], env=environment, check=True)
    assert not (tmp_path / "intel").exists() and not (tmp_path / "Intel").exists()


@pytest.mark.parametrize("size", [(1, 1, 33, 47), (2, 5, 16, 22), (1, 2, 7, 8)])
def test_windows_see_what_the_first_convolution_sees(size):
    from mdmmt.experts.ircsn_openvino import _of_windows, _windows

    clips = noise(*size)
    weight = torch.randn(5, 3, 3, 7, 7, dtype=torch.float64)
    mean = (torch.tensor(MEAN, dtype=torch.float64) * 255).round()
    pixels = (clips - mean).permute(0, 4, 1, 2, 3)
    windows = _windows(clips).to(torch.float64)
    windows -= mean.repeat(windows.shape[-1] // 3)
    seen = F.conv3d(windows.permute(0, 4, 1, 2, 3), _of_windows(weight))
    wanted = F.conv3d(pixels, weight, None, (1, 2, 2), (1, 3, 3))
    torch.testing.assert_close(seen, wanted, rtol=1e-12, atol=1e-9)

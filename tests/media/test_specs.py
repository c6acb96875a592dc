"""The seconds that a clip of each kind stands for."""

from mdmmt.media.specs import AudioSpec, FrameSpec


def test_frame_spec_clip_s_is_the_duration_of_its_frames():
    assert FrameSpec(fps=12, short_side=64, crop=64, clip_frames=30).clip_s == 2.5


def test_audio_spec_clip_s_is_the_hop():
    assert AudioSpec(sample_rate_hz=16000, window_s=0.975, hop_s=0.96).clip_s == 0.96

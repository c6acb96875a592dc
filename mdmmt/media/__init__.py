"""Video and audio files: decoding, clips of frames, windows of sound.

`decode.read_clips` cuts files and `towhee_frames.read_frames` cuts the frames of Towhee's decoders.
Those modules import PyAV, which programs that only embed features do without.
"""

from .specs import AudioSpec, Clip, FrameSpec

__all__ = ["AudioSpec", "Clip", "FrameSpec"]

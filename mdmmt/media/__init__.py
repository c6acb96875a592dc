"""Video and audio files: decoding, clips of frames, windows of sound."""

"""The features of a video: their types, files, segments and tokens."""

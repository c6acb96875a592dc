"""The sample model: a small MDMMT trained by this package on clips that it draws itself.

It shows that everything works, from a video file to a found video; it knows coloured shapes and
tones and nothing else.
"""

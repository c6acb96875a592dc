"""The sample model: a small MDMMT trained by this package on clips that it draws itself.

It shows that everything works, from video files to a search. It knows coloured shapes and tones,
and nothing else.
"""

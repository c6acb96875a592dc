"""The sample model: a small MDMMT trained by this package on clips that it draws itself.

It shows that everything works, from video files to a search. It knows coloured shapes and tones,
and nothing else.
"""

# The best clip of most sentences about other things scores less; the report of the model has it.
THRESHOLD = 0.046
NOTHING_FOUND = "Nothing here looks like that."

"""Annotation files of retrieval datasets: captions and the segments they describe."""

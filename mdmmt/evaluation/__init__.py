"""Retrieval metrics, evaluation runs and their results."""

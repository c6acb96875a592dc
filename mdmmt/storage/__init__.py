"""Bytes in and out: files, texts, checkpoints, downloads. It knows no model."""

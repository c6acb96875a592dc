"""The operators that the fast towers and the experts compute with."""

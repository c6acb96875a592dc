"""Many videos or texts in one run: an item that fails is named, and stops no other."""

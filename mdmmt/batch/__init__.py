"""Many videos or texts in one resumable run."""

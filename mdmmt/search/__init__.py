"""Search: an index in Milvus, its construction from videos, and a page of results."""

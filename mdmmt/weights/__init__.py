"""The weights of MDMMT: their layouts, where they lie, and other forms of them."""

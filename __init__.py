"""What Towhee's hub and operator folder execute: `ops.video_text_embedding.mdmmt`.

The import is relative, since there this package is not installed. It binds the name `mdmmt` twice:
first to the sub-package, and then, as must be, to the factory.
"""

from .mdmmt.operator import MDMMT, mdmmt

__all__ = ["MDMMT", "mdmmt"]

"""Published models from the network: `pull` fetches an archive, checks it, and makes the weight file that `load` finds.

web.py alone opens the network; nothing but `pull` (and `load(..., pull=True)`) imports it.
"""

from __future__ import annotations

from npmobilenet.formats.download.pull import Pulled, pull

__all__ = ["Pulled", "pull"]

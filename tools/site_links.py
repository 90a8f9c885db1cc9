"""A hook of MkDocs (mkdocs.yml): links out of docs/, which the site doesn't have, become plain text."""

from __future__ import annotations

import re
from typing import Any


def on_page_markdown(markdown: str, **_: Any) -> str:
    """The page without links that begin with "../", or lead to the notebook."""
    return re.sub(r"\[([^\]]*)\]\((?:\.\./[^)]*|[\w-]+\.ipynb)\)", r"\1", markdown)

"""Recognizes a lack of memory in the errors of several libraries."""

from __future__ import annotations

import re

_LACKING = re.compile(r"can't allocate memory|out of memory|failed to allocate|bad_alloc", re.IGNORECASE)


def lacks_memory(error: BaseException) -> bool:
    """Whether an error says that memory could not be allocated, on whatever device."""
    return isinstance(error, MemoryError) or (isinstance(error, RuntimeError) and bool(_LACKING.search(str(error))))

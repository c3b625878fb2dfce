"""What a figure says when there is nothing to draw."""

from __future__ import annotations

from yolor_core.errors import YolorError


class NothingToShow(YolorError):
    """A figure has nothing to show. Its text says what is missing and how to get it."""

"""What a check of a published folder counts and says."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from analysis.published.differences import EXACT, Found, json_differences, unequal

SHOWN = 3  # differences named of a check


@dataclass
class Check:
    """One kind of comparison: how many were made, and those that failed."""

    name: str
    done: int = 0
    differences: list[str] = field(default_factory=list)
    wording: list[str] = field(default_factory=list)  # other words with the same numbers
    not_derived: int = 0
    why: str = ""  # they are not derived again

    def compare(self, what: str, published: object, again: object) -> None:
        """Count a comparison of facts; where they differ, remember both."""
        self.done += 1
        if published != again or type(published) is not type(again):
            self.differences.append(unequal(what, published, again))

    def score(self, what: str, published: Any, again: Any) -> None:
        """Count a comparison of numbers, one of which was summed again: its last digit may be another."""
        found = Found()
        json_differences(published, again, what, found, EXACT)
        self.add(found)

    def add(self, found: Found) -> None:
        """Count a comparison made elsewhere."""
        self.done += 1
        self.differences += found.facts
        self.wording += found.words

    def fail(self, what: str) -> None:
        """Count a comparison that could not be made, or failed."""
        self.done += 1
        self.differences.append(what)

    def join(self, other: Check) -> None:
        """Take over what the same check found elsewhere."""
        self.done += other.done
        self.differences += other.differences
        self.wording += other.wording
        self.not_derived += other.not_derived

    def strict(self) -> None:
        """Count other words as differences."""
        self.differences += self.wording
        self.wording = []

    @property
    def line(self) -> str:
        """`COCO's twelve numbers: 168 compared, all equal`."""
        skipped = f"; {self.not_derived} not re-derived ({self.why})" if self.not_derived else ""
        if self.differences:
            count = len(self.differences)
            found = f"{count} difference{'s' if count != 1 else ''} in {self.done} compared"
            return f"DIFFERS {self.name}: {found}{skipped}{_named(self.differences)}"
        if self.wording:
            return f"WORDING {self.name}: {self.done} compared, numbers equal{skipped}{_named(self.wording)}"
        if not self.done:
            return f"ok      {self.name}: none compared{skipped}"
        return f"ok      {self.name}: {self.done} compared, all equal{skipped}"


def _named(found: list[str]) -> str:
    more = f"\n        and {len(found) - SHOWN} more" if len(found) > SHOWN else ""
    return "".join(f"\n        {each}" for each in found[:SHOWN]) + more

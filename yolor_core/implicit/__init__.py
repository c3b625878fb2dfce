"""Implicit knowledge: forms of g(z), operators that combine it with features, sites where it acts.

`registry` (no torch) names what exists; `forms`, `operators` and `sites` hold one class per entry.
"""

from __future__ import annotations

"""Literal types that several stages use, as they appear in manifests and profiles."""

from typing import Literal

Source = Literal["measured", "imported", "predicted"]
"""Where times come from."""

Direction = Literal["device-first", "cloud-first"]
"""Which machine runs first in a split."""

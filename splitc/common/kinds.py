"""Kinds that several stages tell apart, as manifests and profiles spell them."""

from typing import Literal

Source = Literal["measured", "imported", "predicted"]
"""Where times come from."""

Direction = Literal["device-first", "cloud-first"]
"""Which machine begins where both work."""

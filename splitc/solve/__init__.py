"""From costs to the few cuts worth shipping."""

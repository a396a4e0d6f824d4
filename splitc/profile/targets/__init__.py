"""Machines and networks as data, and the times that are predicted from them."""

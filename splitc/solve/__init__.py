"""Select, from the costs of all units, the few cuts that a bundle contains."""

"""A device and a cloud in two network namespaces of this machine, with an emulated link between them."""

"""The installed version of splitc; a module of its own, because looking it up takes time."""

from importlib.metadata import version

__version__ = version("splitc")

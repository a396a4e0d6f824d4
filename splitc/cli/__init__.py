"""The command line: parse, call, print. Nothing else in splitc prints or exits."""

"""What each command takes: its options, and the record that it receives them in; one file per verb.

`splitc --help` and completion in the shell import these modules and nothing else, so they import only
click, the standard library and modules of splitc that need no more. What does the work lies in
`splitc.cli.commands`, and is imported when a command runs.
"""

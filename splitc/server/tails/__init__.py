"""The parts that the cloud runs: opened, optimised once per machine, kept within a limit of memory."""

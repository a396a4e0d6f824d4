"""What no scheduler can beat, and what a policy settles at."""

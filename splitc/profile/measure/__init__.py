"""Ways of running a profiling program: here, on another machine, on a phone, in a browser."""

"""What the commands do; the modules mirror the shell launcher's files and functions."""

"""How the work of a session comes home to the host, before its bottle is removed."""

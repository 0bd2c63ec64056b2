"""What gets out, and with whose credentials: the sidecar's hosts and traffic, the broker, the bottle's authority."""

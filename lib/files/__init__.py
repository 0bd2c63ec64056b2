"""The host's files on their way into a bottle."""

"""Engines that are elsewhere: the link to one, and the nodes and seats of a Swarm."""

"""``doctor``: what is looked at before somebody asks why a start does not work."""

"""What a launch has made, and how all of it goes."""

"""What runs in the bottle beside claude: the guard, the seals, the session's first process; and who looks at it."""

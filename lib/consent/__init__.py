"""What the user is shown, agrees to and keeps: the preflight, approvals, the receipt."""

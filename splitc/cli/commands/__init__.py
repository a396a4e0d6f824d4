"""What each command does, one file per verb; imported when the command runs."""

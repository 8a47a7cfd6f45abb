"""What can be wrong with a repository."""

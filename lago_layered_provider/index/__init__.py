"""`repo.metadata` and what it says of images; nothing has an effect."""

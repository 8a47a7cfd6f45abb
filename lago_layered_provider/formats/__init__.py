"""The bytes of images and of their compressed files; nothing has an effect."""

"""The scan of all image files: unusable images, duplicates and changes."""

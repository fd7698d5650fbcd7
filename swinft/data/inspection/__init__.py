"""One look at every image file: what cannot be used, what occurs twice, what changed."""

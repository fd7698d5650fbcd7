"""The bytes of an image file become RGB pixels at the resolution of training."""

"""Decodes image files to RGB pixels at training resolution."""

"""Swin's window attention, computed faster with timm's own weights."""

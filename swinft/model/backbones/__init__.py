"""Backbones: timm models and custom modules; image sizes, weights, memory format."""

"""timm models through timm's own contract: sizes, weights, order in memory."""

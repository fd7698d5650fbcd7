"""Kinds of target, one class each; no other code depends on the kind."""

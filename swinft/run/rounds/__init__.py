"""Rounds of one config: runs that learn from one another, by pseudo-labels, distillation and filtered labels."""

"""Rules that change predictions after they were averaged: limits, identities between outputs, groups of rows."""

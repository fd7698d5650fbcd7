"""Why a network predicts what it predicts: maps over its images, from gradients, attention weights or covered parts."""

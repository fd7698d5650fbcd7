"""What is predicted: one class per kind of target, the only place that knows what sets the kinds apart."""

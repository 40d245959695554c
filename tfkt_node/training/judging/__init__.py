"""What was said, compared with labels, rivals and readers: the figures of a card."""

"""What is done to a clean slice, and the label it then has."""

"""How the shipped model is made: simulated dose, the label, the fit and its evaluation."""

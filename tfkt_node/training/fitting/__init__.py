"""Features, the fit, its cross-validation, and phase 1 on natural images."""

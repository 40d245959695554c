"""Where pictures come from: clean slices, real images outside every fit, natural images."""

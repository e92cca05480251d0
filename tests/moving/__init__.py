"""Documents into files and back."""

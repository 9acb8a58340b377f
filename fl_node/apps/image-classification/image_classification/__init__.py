"""Image classification as a Flower application."""

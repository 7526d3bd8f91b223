"""What the losses of several methods are made of."""

"""The emitters, one for each form of kernel, and the parts they share."""

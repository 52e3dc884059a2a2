"""What kernels are written with: formulas, names, the writer, the frame of a file."""

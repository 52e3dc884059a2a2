"""ConvLoom compiles convolutional networks to readable, fused Triton kernels."""

__version__ = "0.1.0"

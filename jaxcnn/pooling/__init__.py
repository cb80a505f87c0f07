"""Poolings, and the patches that windows see.

File by file:

    maximum        max pooling, and its inverse
    average        average and power-average pooling
    adaptive       pooling to a size that is asked for, and over whole images
    unfolding      patches ("im2col"), and back
    rule           how JAX differentiates these
    adaptive_rule  … where the size that is asked for does not divide the image's
"""

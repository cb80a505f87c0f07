"""Convolutions and their gradients.

File by file:

    conv        the convolution
    gradients   its three gradients: of the bias, of the weights, of the input
    transposed  the input gradient, as an operation of its own
    separable   depthwise convolutions, with a 1×1 convolution after them or without
    rule        how JAX differentiates all of these
"""

"""What stands between and after convolutions.

File by file:

    activations         ReLU and the others
    softmax             softmax and its logarithm
    dense               the fully connected layer
    dropout             dropout
    normalization       batch, layer, group and instance norm
    normalization_rule  how JAX differentiates these
    losses              softmax cross-entropy and others
"""

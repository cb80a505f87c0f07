"""jaxcnn behind existing code.

File by file:

    patch          jaxcnn's functions in the place of JAX's own
    drop_in        jaxcnn behind the signatures of ``jax.lax`` and of flax
    lax_arguments  from what is written for ``jax.lax`` to what the library computes with
"""

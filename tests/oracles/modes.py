"""Forward mode, which JAX's own differentiation and reverse mode know as well."""

import jax
import jax.numpy as jnp

import jaxcnn


def in_both_modes(rng, f, *operands):
    """The tangent J·v by f's rule, and ⟨c, J·v⟩; and the same as they are known elsewhere.

    v and c are random. Elsewhere the tangent is autodiff's, and ⟨c, J·v⟩ = ⟨Jᵀ·c, v⟩ with
    the gradient by f's rule. All is one program.
    """
    directions = tuple(rng.standard_normal(x.shape) for x in operands)

    def computed(operands, directions, dy):
        _, by_rule = jax.jvp(f, operands, directions)
        with jaxcnn.derivatives("autodiff"):
            _, by_autodiff = jax.jvp(f, operands, directions)
        _, pullback = jax.vjp(f, *operands)
        pulled_back = sum(map(jnp.vdot, pullback(dy), directions))
        return (by_rule, jnp.vdot(dy, by_rule)), (by_autodiff, pulled_back)

    dy = rng.standard_normal(jax.eval_shape(f, *operands).shape)
    return jax.jit(computed)(operands, directions, dy)

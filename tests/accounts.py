"""What a program costs to compile and in memory, without a clock."""

import re

import jax


def account(function, *shapes, dtype="float32"):
    """How many instructions, and how many bytes, the value and its gradients take.

    Instructions are those of the compiled program: compiling takes time for each. Bytes are
    of the temporary memory that the compiler states.
    """
    arrays = [jax.ShapeDtypeStruct(shape, dtype) for shape in shapes]

    def both(*arrays):
        y, backward = jax.vjp(function, *arrays)
        return y, backward(y)

    compiled = jax.jit(both).lower(*arrays).compile()
    instructions = len(re.findall(r"^ .*? = ", compiled.as_text(), re.MULTILINE))
    return instructions, compiled.memory_analysis().temp_size_in_bytes

"""What results came from: the versions and the device."""

import platform
from typing import Any

import jax
import optax

import jaxcnn


def origin() -> dict[str, Any]:
    """What results came from: the versions and the device."""
    return {
        "versions": {
            "jaxcnn": jaxcnn.__version__,
            "jax": jax.__version__,
            "optax": optax.__version__,
            "python": platform.python_version(),
        },
        "device": jax.devices()[0].device_kind,
    }

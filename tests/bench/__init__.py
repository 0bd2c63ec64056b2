"""How fast."""

import tests.conftest  # noqa: F401  # the product has its name from there

"""What was measured, claim by claim."""


def write_claims(*_: object) -> str:
    """Nothing yet."""
    return ""

"""Pictures, and pages that need nothing but themselves."""

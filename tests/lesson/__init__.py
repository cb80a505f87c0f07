"""The lesson's page: how it is built, its numbers, and what a person does with it."""

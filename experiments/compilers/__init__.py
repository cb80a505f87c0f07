"""What XLA's compilers say of a program."""

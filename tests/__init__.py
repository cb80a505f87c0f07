"""The tests of jaxcnn: one file for each of the package's, and what they share."""

"""jaxcnn's operations as other libraries compute them, to compare with."""

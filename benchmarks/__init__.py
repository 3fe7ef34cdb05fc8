"""Speed in images per second, with the machine and the commit beside every figure."""

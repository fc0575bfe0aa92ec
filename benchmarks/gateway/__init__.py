"""How much a gateway adds: the same requests straight and through it, in turns."""

"""How a sweep file becomes finished cells: reading it, expanding or searching it, and running its cells on one or many machines."""

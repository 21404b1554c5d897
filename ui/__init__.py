"""How people use Orbweave: the command line, the terminal view, the design folder, the report."""
